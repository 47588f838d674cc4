"""Which options are accepted, what a refusal says, and what a TOML file turns into."""

from __future__ import annotations

import json
import pickle
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import pytest

from verger.config import Config, check_components, load_config
from verger.errors import ConfigError
from verger.job.record import command_line
from verger.result.output import Output
from verger.serve.facts import load_facts


def write(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text, "utf-8")
    return path


# Values


def test_defaults_are_valid_and_plain() -> None:
    """The defaults are a valid configuration that JSON can hold and a Config can be made of."""
    plain = Config().as_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert Config(**plain | {"glob": tuple(plain["glob"])}) == Config()
    assert (plain["model"], plain["components"], plain["micro_batch"]) == ("mobilenet_v2", 0.9, 1)


def test_a_config_does_not_change() -> None:
    """An option cannot be set anew, past its check."""
    config = Config()
    with pytest.raises(FrozenInstanceError):
        config.micro_batch = 0  # type: ignore[misc]


def test_a_config_crosses_processes() -> None:
    """A configuration comes out of a pickle as it went in."""
    config = Config(glob=("*.jpg", "*.png"), components=3, conf={"spark.a": "b"})
    assert pickle.loads(pickle.dumps(config)) == config


def test_one_option_can_be_replaced() -> None:
    """``replace`` gives another configuration and leaves the first one, and its conf, alone."""
    conf = {"spark.a": "b"}
    config = Config(center=True, conf=conf)
    other = replace(config, micro_batch=2)
    assert other == Config(center=True, conf=conf, micro_batch=2)
    assert (config.micro_batch, other.conf) == (1, {"spark.a": "b"})
    conf["spark.a"] = "changed"
    assert config.conf == other.conf == {"spark.a": "b"}


def test_a_glob_that_is_one_string_is_one_pattern() -> None:
    """A pattern needs no tuple around it, and a list becomes a tuple."""
    assert Config(glob="*.jpg").glob == ("*.jpg",)  # type: ignore[arg-type]
    assert replace(Config(), glob="*.jpg") == Config(glob=("*.jpg",))
    assert Config(glob=["*.jpg", "*.png"]).glob == ("*.jpg", "*.png")  # type: ignore[arg-type]


def test_every_option_has_a_help_text() -> None:
    """Every field carries the sentence that the command line shows."""
    assert [
        f.name for f in fields(Config) if not f.metadata["help"].endswith((".", "]", ")"))
    ] == []


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"micro_batch": 0}, r"micro_batch=0 must be at least 1"),
        ({"micro_batch": -3}, r"micro_batch=-3 must be at least 1"),
        ({"partitions": 0}, r"partitions=0 must be from 1 to 1000000"),
        ({"partitions": 10**14}, r"partitions=100000000000000 must be from 1 to 1000000"),
        ({"workers": 10**8}, r"workers=100000000 must be from 1 to 1024"),
        ({"max_error_rate": 1.5}, r"max_error_rate=1\.5 must be between 0 and 1"),
        ({"max_error_rate": -0.1}, r"max_error_rate=-0\.1 must be between 0 and 1"),
        ({"max_error_rate": float("nan")}, r"max_error_rate=nan must be between 0 and 1"),
        ({"components": 0}, r"components=0 must be between 1 and n_features=1280"),
        ({"components": -1}, r"components=-1 must be between 1 and n_features=1280"),
        ({"components": 2000}, r"components=2000 must be between 1 and n_features=1280"),
        ({"components": 0.0}, r"components=0\.0 must be a share between 0 and 1, or a whole"),
        ({"components": 1.5}, r"components=1\.5 must be a share between 0 and 1, or a whole"),
        ({"components": float("nan")}, r"components=nan must be a share"),
        ({"label_from": "("}, r"label_from='\(' is no regular expression: missing \)"),
        ({"label_from": "photos/.*"}, r"label_from='photos/\.\*' needs a group \(\.\.\.\)"),
        ({"label_from": ""}, r"label_from='' needs a group.*'parent'.*'none'"),
        ({"reader": "spark", "label_from": "column:x"}, "needs reader='arrow'"),
        ({"master": "foo"}, r"master='foo' must be local\[N\], local\[\*\], yarn, or an address"),
        ({"conf": {"spark.master": "local[0]"}}, r"master='local\[0\]' must be local"),
        ({"reader": "hadoop"}, r"reader='hadoop' must be one of arrow, spark"),
    ],
)
def test_a_value_out_of_bounds_is_refused(values: dict[str, Any], says: str) -> None:
    """A value out of its bounds is refused with its name, itself and the bound."""
    with pytest.raises(ConfigError, match=says):
        Config(**values)
    with pytest.raises(ConfigError, match=says):
        replace(Config(), **values)


@pytest.mark.parametrize(
    "values",
    [
        {"micro_batch": 1},
        {"partitions": 1},
        {"partitions": 1_000_000},
        {"workers": 1024},
        {"max_error_rate": 0.0},
        {"max_error_rate": 1},
        {"components": 1},
        {"components": 1280},
        {"components": 1.0},
        {"components": 1e-9},
        {"label_from": "none"},
        {"label_from": r"photos/([^/]+)/"},
        {"reader": "spark"},
        {"master": "local"},
        {"master": "local[*, 4]"},
        {"master": "local-cluster[2,1,1024]"},
        {"master": "k8s://https://host:443"},
    ],
)
def test_a_value_on_its_bound_is_accepted(values: dict[str, Any]) -> None:
    """The bounds themselves are allowed."""
    assert values.items() <= Config(**values).as_dict().items()


def test_the_bound_of_components_is_the_models() -> None:
    """A model of one's own may have more features than the built-in ones, which are checked."""
    assert Config(model="my/model.ONNX", components=2000).components == 2000
    with pytest.raises(ConfigError, match=r"components=0 must be between 1 and n_features$"):
        Config(model="model.onnx", components=0)
    with pytest.raises(ConfigError, match="components=11 must be between 1 and n_features=10"):
        check_components(11, n_features=10)


# The TOML file


@pytest.mark.parametrize("key", ["micro-batch", "micro_batch"])
def test_keys_have_dashes_or_underscores(tmp_path: Path, key: str) -> None:
    """A key may be written as on the command line or as in Python."""
    assert load_config(write(tmp_path, f"{key} = 4")) == {"micro_batch": 4}


def test_a_file_with_every_key(tmp_path: Path) -> None:
    """Every option but those whose default is nothing can be read back from a TOML file."""
    plain = {k: v for k, v in Config().as_dict().items() if v is not None and k != "conf"}
    text = "".join(f"{k.replace('_', '-')} = {json.dumps(v)}\n" for k, v in plain.items())
    assert Config(**load_config(write(tmp_path, text))) == Config()


def test_only_what_the_file_says_is_returned(tmp_path: Path) -> None:
    """An empty file changes no option."""
    assert load_config(write(tmp_path, "# nothing yet\n")) == {}


@pytest.mark.parametrize(
    ("text", "glob"),
    [('glob = "*.jpg"', ("*.jpg",)), ('glob = ["*.jpg", "*.png"]', ("*.jpg", "*.png"))],
)
def test_glob_is_one_pattern_or_a_list(tmp_path: Path, text: str, glob: tuple[str, ...]) -> None:
    """One pattern needs no list."""
    assert load_config(write(tmp_path, text)) == {"glob": glob}


@pytest.mark.parametrize(
    ("text", "conf"),
    [
        ('[conf]\n"spark.executor.memory" = "4g"', {"spark.executor.memory": "4g"}),
        ("[conf]\nspark.ui.port = 4041", {"spark.ui.port": "4041"}),
        ("[conf.spark.sql]\nadaptive.enabled = false", {"spark.sql.adaptive.enabled": "false"}),
        ("conf.spark.a = true\nconf.spark.b.c = 0.5", {"spark.a": "true", "spark.b.c": "0.5"}),
    ],
)
def test_sparks_settings_however_toml_nests_them(
    tmp_path: Path, text: str, conf: dict[str, str]
) -> None:
    """Dotted keys come back as Spark writes them, and booleans as Spark spells them."""
    assert load_config(write(tmp_path, text)) == {"conf": conf}


@pytest.mark.parametrize(
    ("key", "meant"),
    [("componets", "components"), ("max-eror-rate", "max_error_rate"), ("modle", "model")],
)
def test_a_typo_names_the_key_that_was_meant(tmp_path: Path, key: str, meant: str) -> None:
    """An unknown key is refused and the nearest known one is named."""
    with pytest.raises(ConfigError, match=rf"unknown key '{key}'; did you mean '{meant}'\?"):
        load_config(write(tmp_path, f"{key} = 1"))


def test_a_key_near_to_none_lists_all(tmp_path: Path) -> None:
    """A key that resembles none is answered with all that there are."""
    with pytest.raises(ConfigError, match=r"unknown key 'xyzzy'; known keys: glob, .*, ui"):
        load_config(write(tmp_path, "xyzzy = 1"))


@pytest.mark.parametrize(
    "text",
    [
        'micro_batch = "8"',
        "micro_batch = true",
        "micro_batch = 8.0",
        "partitions = false",
        "components = true",
        "max_error_rate = true",
        'recursive = "yes"',
        "recursive = 1",
        "label_from = 3",
        "glob = 3",
        'conf = "spark.ui.port=1"',
        "weights = ['a']",
    ],
)
def test_a_value_of_the_wrong_type_is_refused(tmp_path: Path, text: str) -> None:
    """A value of another type is refused with its key, and a boolean is no number."""
    key = text.split()[0]
    with pytest.raises(ConfigError, match=rf"run\.toml: {key} = .* must be "):
        load_config(write(tmp_path, text))


@pytest.mark.parametrize("text", ["micro_batch: 8", "micro_batch = ", "a = 1\na = 2"])
def test_what_is_not_toml_is_refused(tmp_path: Path, text: str) -> None:
    """A file that is not TOML is refused with its name and the place."""
    with pytest.raises(ConfigError, match=r"run\.toml: is not TOML: .*(line \d|end of document)"):
        load_config(write(tmp_path, text))


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    """A binary file is refused as not TOML."""
    path = tmp_path / "run.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"run\.toml: is not TOML"):
        load_config(path)


HOSTILE_TOML = {
    "a decimal number of 5,000 digits": f"{'9' * 5000}",
    "a hexadecimal number of 5,000 digits": f"0x{'f' * 5000}",
    "lists, one in the other": f"{'[' * 5000}{']' * 5000}",
    "lists that the parser just takes": f"{'[' * 100}{']' * 100}",
}


@pytest.mark.parametrize("value", HOSTILE_TOML.values(), ids=HOSTILE_TOML)
@pytest.mark.parametrize("option", ["--config", "--facts"])
def test_a_hostile_value_is_a_message(tmp_path: Path, option: str, value: str) -> None:
    """Numbers and nesting that Python cannot print or walk through are refused, not raised."""
    path = write(tmp_path, f"workers = {value}")
    with pytest.raises(ConfigError, match=rf"{option} .*run\.toml: is not TOML: ") as caught:
        load_config(path) if option == "--config" else load_facts(path)
    assert len(str(caught.value)) < 1000


def test_a_setting_of_3000_parts_is_a_message(tmp_path: Path) -> None:
    """A dotted key makes as many tables as it has parts."""
    path = write(tmp_path, f"conf{'.a' * 3000} = 1")
    with pytest.raises(ConfigError, match="nested deeper than 32"):
        load_config(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """A file that is not there, or is a folder, is refused with the system's reason."""
    with pytest.raises(ConfigError, match=r"nope\.toml: cannot be read: No such file"):
        load_config(tmp_path / "nope.toml")
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory"):
        load_config(tmp_path)


# The cache


@pytest.mark.parametrize(
    "key",
    [
        "spark.hadoop.fs.s3a.secret.key",
        "spark.hadoop.fs.s3a.access.key",
        "spark.hadoop.fs.s3a.session.token",
        "spark.ssl.keyStorePassword",
        "spark.hadoop.fs.s3a.aws.credentials.x",
        "spark.hadoop.fs.s3a.encryption.key",
        "spark.hadoop.fs.azure.account.key.orchard",
        "spark.hadoop.fs.azure.sas.fixed.token.x",
        "spark.hadoop.fs.azure.sas.orchard.x",
        "spark.hadoop.fs.gs.auth.account.private.key",
    ],
)
def test_secrets_of_spark_are_used_and_never_written_down(key: str) -> None:
    """Spark gets the value; the record, the report and the repeated command do not."""
    config = Config(conf={key: "hunter2", "spark.executor.memory": "4g"})
    assert config.conf[key] == "hunter2"
    written = str(config.as_dict()) + command_line("/in", Output("/out"), config.as_dict())
    assert "hunter2" not in written
    assert "(hidden)" in written
    assert "4g" in written


def test_a_secret_within_a_value_is_never_written_down() -> None:
    """Java's options may hold one."""
    config = Config(conf={"spark.driver.extraJavaOptions": "-Daws.secretKey=hunter2"})
    assert "hunter2" not in str(config.as_dict())


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"components": "5"}, "components='5' must be int or float"),
        ({"workers": "2"}, "workers='2' must be int"),
        ({"decode_timeout_s": "1"}, "decode_timeout_s='1' must be float"),
        ({"center": 1}, "center=1 must be bool"),
        ({"glob": [3]}, r"glob=\(3,\) must be a pattern"),
        ({"conf": "a=1"}, "conf='a=1' must be dict"),
        ({"reader": None}, "reader=None must be str"),
    ],
)
def test_python_values_of_the_wrong_type_are_refused(values: dict[str, Any], says: str) -> None:
    """An option of Python is refused by its name, as one of a file is."""
    with pytest.raises(ConfigError, match=says):
        Config(**values)


def test_files_may_be_paths(tmp_path: Path) -> None:
    """Options that are files may be paths, and so may the file of the options."""
    assert Config(weights=Path("w.h5"), labels=Path("l.csv")) == Config(  # type: ignore[arg-type]
        weights="w.h5", labels="l.csv"
    )
    assert load_config(str(write(tmp_path, "center = true"))) == {"center": True}
