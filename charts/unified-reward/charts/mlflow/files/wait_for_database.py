import os, sys, time
import sqlalchemy
engine = sqlalchemy.create_engine(os.environ["MLFLOW_BACKEND_STORE_URI"], connect_args={"connect_timeout": 5})
for attempt in range(150):
    try:
        engine.connect().close()
        sys.exit(0)
    except sqlalchemy.exc.OperationalError as error:
        if attempt % 5 == 0:
            print("waiting for the database:", str(error.orig).strip().splitlines()[-1], flush=True)
        time.sleep(2)
sys.exit("the database did not answer")
