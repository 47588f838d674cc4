"""Secrets are told by their name and by their form; what is none is left as it is."""

from __future__ import annotations

import pytest

from verger.config import Config
from verger.errors import ConfigError
from verger.files.paths import normalize_source
from verger.redaction import is_secret, redact, redact_json, redact_setting, refuse_secret

SECRET = "hunter2-Xq9"


@pytest.mark.parametrize(
    "text",
    [
        "https://user:{}@host/photos",
        "hdfs://user:{}@node:8020/photos",
        "s3://AKIAIOSFODNN7:{}@bucket/photos",
        "s3a://AKIA:{}/with+slash@bucket",
        "https://{}@github.com/private.git",
        "could not resolve https://u:{}@repo.example/maven, giving up",
        "--config https:/user:{}@host/x.toml: cannot be read",
        "jdbc:postgresql://host/db?user=me&password={}&ssl=true",
        "https://bucket.example/a.jpg?X-Amz-Signature={}&X-Amz-Date=2024",
        "https://account.blob.example/a.jpg?sv=2022&sig={}",
        "-Djavax.net.ssl.keyStorePassword={} -Xmx2g",
        "--conf spark.ssl.keyPassword={}",
        "spark.executorEnv.GITHUB_PAT={}",
        "spark.executorEnv.DATABASE_URL={}",
        "Server=x;Uid=me;Pwd={};",
        'AWS_SECRET_ACCESS_KEY="{}"',
        '{{"password": "{}", "user": "me"}}',
        "Authorization: Bearer {}",
        "Authorization: Basic {}",
        "authorization: {}",
        "the server answered 401 to Bearer {}",
        "ghp_{}0123456789abcdefghij".replace("-", ""),
    ],
)
def test_a_secret_in_a_text_is_hidden_by_its_form(text: str) -> None:
    """Whatever stands around it, a password, a key or a token is never shown."""
    secret = SECRET.replace("-", "") if text.startswith("ghp") else SECRET
    shown = redact(text.format(secret))
    assert secret not in shown
    assert "(hidden)" in shown


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/photos@2x/1.jpg",
        "hdfs://node:8020/photos@2x/1.jpg",
        "abfss://container@account.dfs.core.windows.net/photos",
        "file:///photos/user:name@home/1.jpg",
        "/photos/secret garden/1.jpg: not an image",
        "me@example.org wrote 12 photos",
        "contract=0123456789ab, weights_sha256=f00d",
        "invalid token: expected a number",
        "spark.executor.memory=4g",
        "patient=12 pattern=*.jpg path=/a/b",
        "http://127.0.0.1:8000/health",
    ],
)
def test_what_is_no_secret_is_left_as_it_is(text: str) -> None:
    """Addresses, paths and messages without a secret come back unchanged."""
    assert redact(text) == text


@pytest.mark.parametrize(
    "name",
    [
        "spark.hadoop.fs.s3a.secret.key",
        "spark.ssl.keyPass",
        "spark.ssl.keyPassword",
        "spark.executorEnv.GITHUB_PAT",
        "spark.executorEnv.DATABASE_URL",
        "db.pwd",
        "Authorization",
        "spark.hadoop.fs.azure.sas.orchard.x",
        "api_key",
    ],
)
def test_a_setting_is_a_secret_by_its_name(name: str) -> None:
    """The value of such a setting is hidden whatever it looks like."""
    assert is_secret(name)
    assert redact_setting(name, SECRET) == "(hidden)"
    assert redact_json({"conf": {name: SECRET}, "n": 3}) == {"conf": {name: "(hidden)"}, "n": 3}


@pytest.mark.parametrize("name", ["spark.executor.memory", "glob", "path", "pattern", "label"])
def test_other_settings_are_shown(name: str) -> None:
    """A name that only resembles one of a secret hides nothing."""
    assert redact_setting(name, "4g") == "4g"


@pytest.mark.parametrize(
    "address",
    ["https://user:{}@host/p", "hdfs://user:{}@node/p", "s3://AKIA:{}@b/p", "s3://b/p?token={}"],
)
def test_an_address_with_a_secret_is_refused_and_not_echoed(address: str) -> None:
    """SRC, OUT and weights are written to run.json: none of them may hold a password."""
    full = address.format(SECRET)
    for refuse in (
        lambda: refuse_secret("SRC", full),
        lambda: normalize_source(full),
        lambda: Config(weights=full),
        lambda: Config(master=full),
    ):
        with pytest.raises(ConfigError, match=r"\(hidden\).*no password and no key") as caught:
            refuse()
        assert SECRET not in str(caught.value)


def test_a_folder_with_an_odd_name_is_no_secret() -> None:
    """A local path is never refused for what it is called."""
    assert normalize_source("/photos/token=12/a:b@c").endswith("token=12/a:b@c")
