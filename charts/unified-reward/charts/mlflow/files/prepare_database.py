# Waits for the database, then brings the schema of an older MLflow up to date, which the server refuses to work with.
import importlib.util, os, subprocess, sys, time
import sqlalchemy
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

URI = os.environ["MLFLOW_BACKEND_STORE_URI"]
LOCK = 0x7572  # held by the one of several servers that looks first


def connect():
    engine = sqlalchemy.create_engine(URI, connect_args={"connect_timeout": 5})
    for attempt in range(150):
        try:
            return engine.connect()
        except sqlalchemy.exc.OperationalError as error:
            if attempt % 5 == 0:
                print("waiting for the database:", str(error.orig).strip().splitlines()[-1], flush=True)
            time.sleep(2)
    sys.exit("the database did not answer")


def latest():
    scripts = Config()
    scripts.set_main_option("script_location", importlib.util.find_spec("mlflow").submodule_search_locations[0] + "/store/db_migrations")
    return ScriptDirectory.from_config(scripts).get_current_head()


with connect() as connection:
    if os.environ["UR_MIGRATE"] == "true":
        if connection.dialect.name == "postgresql":
            connection.execute(sqlalchemy.text(f"SELECT pg_advisory_lock({LOCK})"))
        found, wanted = MigrationContext.configure(connection).get_current_revision(), latest()
        if found and found != wanted:  # the server makes the schema of an empty database itself
            print(f"the schema of the database is {found}, this MLflow's is {wanted}: upgrading", flush=True)
            sys.exit(subprocess.run(["mlflow", "db", "upgrade", URI]).returncode)
