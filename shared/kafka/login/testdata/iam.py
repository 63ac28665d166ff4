"""Signs what AWS_MSK_IAM and OAUTHBEARER show a broker of MSK, by botocore (1.43.11). Prints iam.json: python3 iam.py >iam.json"""
import base64
import datetime
import json
from unittest import mock

import botocore.auth
import botocore.awsrequest
import botocore.credentials

CASES = [
    # name, access key, secret key, session token, host, region, time
    ("a user's keys", "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "",
     "b-1.demo.abc123.c2.kafka.us-west-2.amazonaws.com", "us-west-2", "2026-02-28T23:59:59"),
    ("a role's keys, with a token that wants escaping", "ASIAEXAMPLE", "s3cr3t/+=", "FwoGZXIvYXdzE//+Ab c=~*'()%2F&?",
     "boot-xyz.c3.kafka-serverless.eu-central-1.amazonaws.com", "eu-central-1", "2026-12-31T00:00:01"),
    ("China", "AKIDEXAMPLE", "secret", "token",
     "b-2.demo.abc123.c4.kafka.cn-north-1.amazonaws.com.cn", "cn-north-1", "2027-01-01T12:34:56"),
]


def presign(key, secret, token, host, region, at):
    request = botocore.awsrequest.AWSRequest(method="GET", url=f"https://{host}/?Action=kafka-cluster%3AConnect")
    credentials = botocore.credentials.Credentials(key, secret, token or None)
    moment = datetime.datetime.fromisoformat(at)
    with mock.patch.object(botocore.auth, "get_current_datetime", lambda: moment):
        botocore.auth.SigV4QueryAuth(credentials, "kafka-cluster", region, expires=900).add_auth(request)
    return request.url


def main():
    vectors = []
    for name, key, secret, token, host, region, at in CASES:
        vectors.append({
            "name": name, "key": key, "secret": secret, "token": token, "host": host, "region": region, "at": at + "Z",
            "url": presign(key, secret, token, host, region, at),
            "bearer": presign(key, secret, token, f"kafka.{region}.amazonaws.com", region, at),
        })
    print(json.dumps(vectors, indent=1))


main()
