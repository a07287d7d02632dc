"""What paths name: a format, a share of the rows, a folder of tables, or a mix in a YAML file."""

import json
from pathlib import Path

import pytest

from unified_reward.data.sources import Source, chosen_rows, read_sources
from unified_reward.data.tables import read_rows
from unified_reward.errors import UserError


def table(path: Path, rows: int = 10) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([{"n": n} for n in range(1, rows + 1)]))
    return path


@pytest.mark.parametrize(
    ("strategy", "wanted"),
    [("all", None), ("first:3", {1, 2, 3}), ("end:2", {9, 10}), ("first:25%", {1, 2, 3}), ("end:1%", {10}),
     ("first:99", None), ("random:25000", None), ("first:0", set())],
)  # fmt: skip
def test_strategies_take_their_share(tmp_path: Path, strategy: str, wanted: set[int] | None) -> None:
    assert chosen_rows(Source(table(tmp_path / "t.json"), None, strategy), seed=0) == wanted


def test_random_rows_depend_on_the_seed_only(tmp_path: Path) -> None:
    source = Source(table(tmp_path / "t.json", 100), None, "random:30%")
    drawn = chosen_rows(source, 0)
    assert drawn is not None
    assert len(drawn) == 30
    assert drawn == chosen_rows(source, 0) != chosen_rows(source, 1)
    assert [number for number, _ in read_rows(source.path, drawn)] == sorted(drawn)


@pytest.mark.parametrize("strategy", ["last:3", "random", "first:x", "random:5%%"])
def test_a_strategy_that_is_none_is_told(tmp_path: Path, strategy: str) -> None:
    with pytest.raises(UserError, match=f"t.json is {strategy}: there is no such strategy. Use all, first:N"):
        chosen_rows(Source(table(tmp_path / "t.json"), None, strategy), 0)


def test_an_entry_names_format_path_and_share(tmp_path: Path) -> None:
    path = table(tmp_path / "a" / "t.json")
    table(tmp_path / "a" / "u.json")
    (source,) = read_sources([f"hpd={path}@random:10%"], "files", tmp_path)
    assert (source.path, source.format and source.format.name, source.strategy) == (path, "hpd", "random:10%")
    assert source.folders == (tmp_path, path.parent)
    folder = read_sources([str(path.parent)], "oip", tmp_path)
    assert [(s.path.name, s.format and s.format.name) for s in folder] == [("t.json", "oip"), ("u.json", "oip")]


def test_a_published_mix_is_read_as_it_stands(tmp_path: Path) -> None:
    table(tmp_path / "dataset" / "HPD" / "train_data.json")
    table(tmp_path / "dataset" / "OIP" / "train_data.json")
    mix = tmp_path / "dataset" / "train_data.yaml"
    mix.write_text(
        "datasets:\n"
        "  - json_path: dataset/HPD/train_data.json\n    sampling_strategy: all\n    image_folder: dataset/HPD\n"
        "  - json_path: dataset/OIP/train_data.json\n    sampling_strategy: random:25000      \n    format: unifiedreward\n"
    )
    first, second = read_sources([str(mix)], "files", Path("media"))
    assert first.folders == (tmp_path / "dataset" / "HPD", Path("media"), first.path.parent)
    assert (second.strategy, second.format and second.format.name) == ("random:25000", "unifiedreward")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datasets: []", "it has no list `datasets`"),
        ("datasets: [{json: x}]", r"datasets\[0\] is .*it has no json_path"),
        ("datasets: [{json_path: t.json, weight: 2}]", r"datasets\[0\].weight is 2: there is no such key"),
        ("datasets: [{json_path: none.json}]", "none.json: there is no such file"),
        ("datasets: [{json_path: t.json, format: oib}]", "Did you mean oip"),
        (
            "datasets: [{json_path: t.json, sampling_strategy: some}]",
            r"datasets\[0\] is some: there is no such strategy",
        ),
        ("a: [", "it cannot be read"),
    ],
)
def test_a_mistake_in_a_mix_is_told_by_its_place(tmp_path: Path, text: str, message: str) -> None:
    table(tmp_path / "t.json")
    (tmp_path / "mix.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_sources([str(tmp_path / "mix.yaml")], "files", tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.doc", "x", "only .json, .jsonl, .csv, .tsv, .parquet, .txt are read"),
        ("t.json", "[1", "it is no JSON"),
        ("t.json", '"x"', "it holds no list of rows"),
        ("t.parquet", "x", "it is no Parquet file"),
        ("t.jsonl.gz", "x", "it cannot be read"),
    ],
)
def test_a_file_that_is_no_table_is_told(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        list(read_rows(tmp_path / name))


def test_lines_that_are_no_rows_keep_their_number(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"a": 1}\n\n{"a":\n[1]\n{"a": 2}\n')
    rows = list(read_rows(tmp_path / "t.jsonl"))
    assert [(number, isinstance(row, Exception)) for number, row in rows] == [
        (1, False),
        (3, True),
        (4, True),
        (5, False),
    ]
    (tmp_path / "t.csv").write_text("a,b\n1,2\n1,2,3\n")
    assert [str(row) for _, row in read_rows(tmp_path / "t.csv")][1].startswith("the row has more cells")


def test_a_source_that_is_none_is_told_before_its_missing_paths(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"import\.source is shpaes: there is no such format\. Did you mean shapes\?"):
        read_sources([], "shpaes", tmp_path)
    with pytest.raises(UserError, match=r"import\.paths is not set: source is hpd"):
        read_sources([], "hpd", tmp_path)
