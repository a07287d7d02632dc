"""The store with the jobs' own keys: an object is put, read and deleted; what is not theirs is refused."""

import io
import os
import sys
import uuid
from urllib.parse import urlsplit

from minio import Minio
from minio.error import S3Error

bucket, refused, bundled = sys.argv[1], sys.argv[2], sys.argv[3] == "bundled"
region = os.environ["AWS_REGION"]
endpoint = urlsplit(os.environ.get("UR_S3_ENDPOINT") or f"https://s3.{region}.amazonaws.com")
client = Minio(
    endpoint.netloc, access_key=os.environ["AWS_ACCESS_KEY_ID"], secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
    secure=endpoint.scheme == "https", region=region,
)
key, body = f"helm-test/{uuid.uuid4().hex}", os.urandom(6 * 1024 * 1024)
client.put_object(bucket, key, io.BytesIO(body), length=-1, part_size=5 * 1024 * 1024)  # in two parts
with client.get_object(bucket, key) as answer:
    assert answer.read() == body, "what was read is not what was put"
assert [found.object_name for found in client.list_objects(bucket, prefix=key)] == [key]
client.remove_object(bucket, key)
assert not list(client.list_objects(bucket, prefix=key)), "the object is still there after its deletion"
print(f"{bucket}: put, read, listed and deleted {len(body)} bytes")

if bundled:
    attempts = {
        f"list {refused}": lambda: list(client.list_objects(refused)),
        f"write to {refused}": lambda: client.put_object(refused, "helm-test", io.BytesIO(b"x"), 1),
        "make a bucket": lambda: client.make_bucket(f"helm-test-{uuid.uuid4().hex}"),
        f"open {bucket} to all": lambda: client.set_bucket_policy(bucket, "{}"),
        f"delete {bucket}": lambda: client.remove_bucket(bucket),
    }
    for what, attempt in attempts.items():
        try:
            attempt()
        except S3Error as error:
            assert error.code == "AccessDenied", f"to {what} failed otherwise: {error.code}"
            print(f"refused, as it should be: to {what}")
        else:
            sys.exit(f"the jobs' user may {what}, which it must not")
