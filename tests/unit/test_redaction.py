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
        "DB_PASS={}",
        "--conf spark.my.pass={}",
        "password=a;b,c&d{}",
        'password=ab"{}',
        "password='a b {}'",
        '"spark.my.password=a {}" and more',
        "'https://host/a?token=a b {}' and more",
        "form[password]={}",
        '{{\\"password\\": \\"a {}\\"}}',
        '{{"password": ["a", "{}"]}}',
        '{{"token": {{"value": "{}"}}}}',
        "Authorization: Token {}",
        "Proxy-Authorization: Digest a=1, b={}",
        "X-Auth-Token: {}",
        "curl -H 'Content-Type: a' -H 'X-Auth-Token: {}'",
        "Cookie: a=b; c={}",
        "hdfs://{}@node/photos",
        "jdbc:oracle:thin:scott/{}@host",
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


@pytest.mark.parametrize(
    "address",
    [
        "hdfs://{}@node/p",
        "https://u:12/{}@host",
        "s3://b/x#token={}",
        "hdfs://node/x;password={}",
        "https://u:a?{}@host",
        "https://u:a b{}@host",
        "jdbc:oracle:thin:scott/{}@host",
    ],
)
def test_a_secret_anywhere_in_an_address_is_refused(address: str) -> None:
    """A token before the @, a password like a port, and one behind # or ; are refused too."""
    with pytest.raises(ConfigError, match=r"\(hidden\).*no password and no key") as caught:
        normalize_source(address.format(SECRET))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "s3://bucket/photos@2x/me@example.org/token=12",
        "hdfs://node:8020/photos",
        "abfss://container@account.dfs.core.windows.net/photos",
        "wasbs://container@account.blob.core.windows.net/photos",
    ],
)
def test_an_address_without_a_secret_is_taken(address: str) -> None:
    """Containers of Azure and folders with an @ are no secrets."""
    assert normalize_source(address) == address


def test_what_follows_a_quoted_secret_is_shown() -> None:
    """Only the secret is hidden of a quoted word, and a text that was redacted stays as it is."""
    shown = "--conf 'spark.my.token=(hidden)' --ui"
    assert redact(f"--conf 'spark.my.token={SECRET} x' --ui") == shown == redact(shown)


@pytest.mark.parametrize("value", ["X", 123456, ["X"], {"value": "X"}, True])
def test_whatever_has_a_secret_name_is_hidden_in_json(value: object) -> None:
    """Numbers, lists and tables under a secret name are hidden as texts are."""
    assert redact_json({"a": [{"password": value}]}) == {"a": [{"password": "(hidden)"}]}


def test_names_and_patterns_are_stored_without_secrets() -> None:
    """run.json shows no secret that was written into app_name, label_from or glob."""
    config = Config(
        app_name=f"password={SECRET}", label_from=f"token={SECRET}(.*)", glob=(f"*sig={SECRET}",)
    )
    assert SECRET not in str(config.as_dict())
    assert SECRET in config.app_name


def test_a_long_text_is_redacted_at_once() -> None:
    """The time grows with the length of a text, not with its square."""
    for text in ("token" * 40_000, "a-" * 100_000, "token='" * 30_000, "a\"' " * 50_000):
        redact(text)


def test_a_folder_with_an_odd_name_is_no_secret() -> None:
    """A local path is never refused for what it is called."""
    assert normalize_source("/photos/token=12/a:b@c").endswith("token=12/a:b@c")
