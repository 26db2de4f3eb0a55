"""What files may say, how it is understood, and where a refusal points."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from promptab.errors import InvalidInputError, PromptFileError
from promptab.library import FileSystemPromptLibrary, PromptSource
from promptab.models import MessageTemplate, PromptType, VersionStatus


def library_of(folder: Path, files: Mapping[str, str | bytes]) -> FileSystemPromptLibrary:
    for path, content in files.items():
        (folder / path).parent.mkdir(exist_ok=True, parents=True)
        (folder / path).write_bytes(content.encode() if isinstance(content, str) else content)
    return FileSystemPromptLibrary(folder)


def only_source(folder: Path, path: str, content: str | bytes) -> PromptSource:
    contents = library_of(folder, {path: content}).load()
    assert contents.problems == ()
    [file] = contents.prompts.values()
    return file.source


def only_problem(folder: Path, path: str, content: str | bytes) -> PromptFileError:
    contents = library_of(folder, {path: content}).load()
    assert contents.prompts == {}
    [problem] = contents.problems
    assert problem.path == path
    return problem


EVERYTHING = """\
---
name: reply
description: Answers a question.
model: gpt-4.1-mini
config:
  temperature: 1e-1
  stop: [END]
tools: [search]
input:
  schema:
    name: string, who asks
    age?: integer
  default:
    age: null
output:
  format: json
  schema:
    answer: string
metadata:
  owner: us
  since: 2024-01-01
promptab:
  bump: minor
  tags: [b, a]
  extras: true
promptab.status: draft
---

Hi {{ name }}.

"""


def test_markdown_file_declares_every_part(tmp_path: Path) -> None:
    assert only_source(tmp_path, "system/reply.md", EVERYTHING) == PromptSource(
        name="reply",
        prompt_type=PromptType.SYSTEM,
        template="Hi {{ name }}.",
        defaults={"age": None},
        validation={
            "type": "object",
            "properties": {
                "name": {"type": "string", "description": "who asks"},
                "age": {"type": ["integer", "null"]},
            },
            "required": ["name"],
            "additionalProperties": True,
        },
        config={
            "model": "gpt-4.1-mini",
            "parameters": {"temperature": 0.1, "stop": ["END"]},
            "tools": ["search"],
            "output": {
                "format": "json",
                "schema": {
                    "type": "object",
                    "properties": {"answer": {"type": "string"}},
                    "required": ["answer"],
                    "additionalProperties": False,
                },
            },
        },
        metadata={"description": "Answers a question.", "owner": "us", "since": "2024-01-01"},
        bump="minor",
        status=VersionStatus.DRAFT,
        tags=("b", "a"),
    )


@pytest.mark.parametrize(
    "content",
    [
        "Hi {{ name }}",
        "Hi {{ name }}\n",
        "\n\nHi {{ name }}\n\n \n",
        "---\n---\nHi {{ name }}\n",
        "---  \n\n---\t\n\nHi {{ name }}\n",
        "\ufeffHi {{ name }}\n",
        "\ufeff---\r\n---\r\nHi {{ name }}\r\n",
        "---\n# only a comment\n---\nHi {{ name }}",
    ],
)
def test_body_is_the_text_without_blank_lines_around_it(tmp_path: Path, content: str) -> None:
    assert only_source(tmp_path, "user/a.md", content).template == "Hi {{ name }}"


def test_body_keeps_its_inner_lines_and_outer_spaces(tmp_path: Path) -> None:
    content = "---\nmodel: m\n---\n  Hi\n\n---\nAnswer: \n"
    assert only_source(tmp_path, "user/a.md", content).template == "  Hi\n\n---\nAnswer: "


def test_windows_line_ends_become_plain_ones(tmp_path: Path) -> None:
    assert only_source(tmp_path, "user/a.md", "a\r\nb\rc\r\n").template == "a\nb\nc"


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("user/a.yaml", "template: Hi {{ name }}\ndefaults: {name: you}\nmetadata: {owner: us}\n"),
        ("user/a.yml", "template: Hi {{ name }}\ninput: {default: {name: you}}\nmetadata: {owner: us}\n"),
        (
            "user/a.json",
            '{"template": "Hi {{ name }}", "defaults": {"name": "you"}, "metadata": {"owner": "us"}}',
        ),
        ("user/a.md", "---\ntemplate: Hi {{ name }}\ndefaults: {name: you}\nmetadata: {owner: us}\n---\n"),
    ],
)
def test_formats_say_the_same(tmp_path: Path, path: str, content: str) -> None:
    assert only_source(tmp_path, path, content) == PromptSource(
        name="a",
        prompt_type=PromptType.USER,
        template="Hi {{ name }}",
        defaults={"name": "you"},
        metadata={"owner": "us"},
    )


def test_older_validation_becomes_a_schema(tmp_path: Path) -> None:
    content = "template: Hi {{ name }}\nvalidation: {level: error, required_params: [name]}\n"
    source = only_source(tmp_path, "user/a.yaml", content)
    assert source.validation is not None
    assert source.validation["type"] == "object"
    assert source.validation["required"] == ["name"]


@pytest.mark.parametrize("folder", ["message", "messages"])
@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".yaml", "messages:\n  - role: system\n    content: Be kind.\n  - {role: user, content: Hi}\n"),
        (
            ".md",
            "---\nmessages:\n  - role: system\n    content: Be kind.\n  - {role: user, content: Hi}\n---\n",
        ),
        (
            ".json",
            '{"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]}',
        ),
    ],
)
def test_chat_prompts_are_lists_of_role_and_content(
    tmp_path: Path, folder: str, suffix: str, content: str
) -> None:
    source = only_source(tmp_path, f"{folder}/a{suffix}", content)
    assert source.prompt_type is PromptType.MESSAGE
    assert source.messages == (
        MessageTemplate(role="system", content="Be kind."),
        MessageTemplate(role="user", content="Hi"),
    )


def test_config_prompt_takes_its_config_whole(tmp_path: Path) -> None:
    content = "config:\n  model: x\n  deep: {top_k: 5}\n"
    assert only_source(tmp_path, "config/a.yaml", content).config == {"model": "x", "deep": {"top_k": 5}}


def test_model_prompt_has_a_model_and_no_text(tmp_path: Path) -> None:
    source = only_source(tmp_path, "model/a.md", "---\nmodel: m\nconfig: {temperature: 0}\n---\n")
    assert source.config == {"model": "m", "parameters": {"temperature": 0}}
    assert source.template == ""


def test_extras_alone_allow_any_variable(tmp_path: Path) -> None:
    source = only_source(tmp_path, "user/a.md", "---\npromptab: {extras: true}\n---\nHi")
    assert source.validation == {"type": "object", "additionalProperties": True}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("on", "on"),
        ("2024-01-01", "2024-01-01"),
        ("12:30", "12:30"),
        ("007", "007"),
        ("1_000", "1_000"),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-3", -3),
        ("TRUE", True),
        ("~", None),
        ("'1'", "1"),
        ('"\\u00e9"', "é"),
    ],
)
def test_plain_scalars_follow_yaml_1_2(tmp_path: Path, text: str, value: object) -> None:
    found = only_source(tmp_path, "config/a.yaml", f"config:\n  a: {text}\n").config["a"]
    assert repr(found) == repr(value)


FRONT = "---\nmodel: m\n{}\n---\nHi\n"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("modle: x", "did you mean 'model'?"),
        ("temperature: 1", "unknown key 'temperature'"),
        ("bump: minor", "write it under promptab:"),
        ("promptab.stats: draft", "did you mean 'status'?"),
        ("promptab: {bmup: minor}", "did you mean 'bump'?"),
        ("promptab: 3", "not a set of keys"),
        ("promptab: {bump: tiny}", "one of major, minor, patch, auto"),
        ("promptab: {version: 1.0}", "put it in quotes"),
        ("promptab: {version: v1.0.0}", "version"),
        ("promptab: {status: live}", "one of draft, active"),
        ("promptab: {tags: [latest]}", "latest"),
        ("promptab: {tags: [1]}", "put it in quotes"),
        ("promptab: {tags: [a, a]}", "without repetitions"),
        ("promptab: {extras: yes}", "not true or false"),
        ("promptab: {bump: auto, version: 1.0.0}", "declare one of the two"),
        ("promptab: {config: {a: 1}}", "remove model"),
        ("name: other", "not the file's name 'a'"),
        ("name: 3", "not text"),
        ("config: [1]", "not a set of keys"),
        ("tools: search", "not a list"),
        ("description: {a: 1}", "not text"),
        ("messages: []", "did you mean|unknown key 'messages'"),
        ("template: Hi", "below the front matter; keep one"),
        ("input: {schema: {a: strin}}", "'strin' is not one of the types"),
        ("input: {shcema: {}}", "did you mean 'schema'?"),
        ("input: {schema: string}", "input.schema"),
        ("input: {schema: {type: object, properties: 3}}", "input.schema"),
        ("input: {schema: {type: object, $ref: 'https://example.org/x'}}", "input.schema"),
        ("output: {schema: {type: array, items: {type: nonsense}}}", "output.schema"),
        ("output: {schema: {type: [array, nonsense]}}", "output.schema"),
        ("output: {form: json}", "did you mean 'format'?"),
        ("model: n", "there twice"),
        ("metadata: {a: 1, a: 2}", "there twice"),
        ("metadata: {1: a}", "not text"),
        ("metadata: {? [a] : b}", "not text"),
        ("metadata: {<<: {a: 1}}", "merge keys"),
        ("metadata: &a {b: 1}", "anchors"),
        ("metadata: *a", "not valid YAML|anchors"),
        ("metadata: !!python/object/apply:os.system [id]", "tags"),
        ("metadata: !custom a", "tags"),
        ("metadata: {a: .nan}", "not a finite number"),
        ("metadata: {a: 1e999}", "not a finite number"),
        ("metadata: {a: 9223372036854775808}", "63 bits"),
        ('metadata: {a: "\\0"}', "control character"),
        ('metadata: {a: "\\ud800"}', "control character"),
        ('metadata: {a: "\\UFFFFFFFF"}', "out of range"),
        ('metadata: {"a\\tb": 1}', "in a key"),
        ("metadata: {a: \u2028}", "U\\+2028"),
        ("metadata: \ufffe", "not valid YAML"),
        ("metadata: {a: [}", "not valid YAML"),
        ("metadata: a: b", "not valid YAML"),
        ("metadata: {{ name }}", "not text"),
        ("metadata: " + "[" * 50 + "]" * 50, "levels deep"),
    ],
)
def test_refused_front_matter_is_named_with_its_line(tmp_path: Path, line: str, reason: str) -> None:
    with pytest.raises(PromptFileError, match=reason) as refused:
        raise only_problem(tmp_path, "system/a.md", FRONT.format(line))
    assert refused.value.line == 3
    assert str(refused.value).startswith("system/a.md:3: ")


@pytest.mark.parametrize(
    ("path", "content", "line", "reason"),
    [
        ("system/a.md", "", None, "template"),
        ("system/a.md", "---\nmodel: m\n---\n\n", 2, "template"),
        ("system/a.md", "---\nmodel: m\nHi\n", 1, "never closed"),
        ("system/a.md", "---\n- a\n---\nHi\n", 2, "expected keys"),
        ("system/a.md", "---\nmodel: m\n--- {}\n---\nHi", 3, "second YAML document"),
        ("system/a.md", "a\nb\x07", 2, "U\\+0007"),
        ("system/a.md", "a\nb\0", 2, "U\\+0000"),
        ("system/a.md", b"a\n\xff\xfe", 2, "not UTF-8"),
        ("system/a.md", "a".encode("utf-16"), 1, "not UTF-8"),
        ("system/a.md", "---\nmodel: m\n---\n\na\n{% if b %}\n{{ c }\n{% endif %}", 7, "'}'"),
        ("system/a.md", "a\n{% endif %}", 2, "endif"),
        ("system/a.md", "---\nmodel: m\n---\n" + "x" * 100_001, 4, "at most 100000"),
        ("system/a.yaml", "model: m\ntemplate: |\n  a\n  {% endif %}\n", 4, "endif"),
        ("system/a.yaml", "model: m\ntemplate: >\n  a\n  {% endif %}\n", 2, "endif"),
        ("system/a.yaml", "model: m\ntemplate: 'a\n\n  {% endif %}'\n", 2, "endif"),
        ("system/a.yaml", "template: a\n---\ntemplate: b\n", 2, "second YAML document"),
        ("system/a.yaml", "", None, "template"),
        ("system/a.yaml", "template: a\ndefaults: {a: 1}\ninput:\n  default: {a: 1}\n", 2, "keep one"),
        ("system/a.yaml", "template: a\nvalidation: {}\ninput:\n  schema: {a: string}\n", 2, "keep one"),
        ("system/a.yaml", "template: a\ndescription: b\nmetadata: {description: c}\n", 2, "keep one"),
        ("system/a.yaml", "template: 3\n", 1, "not text"),
        (
            "system/a.yaml",
            "template: a\npromptab: {status: draft}\npromptab.status: draft\n",
            3,
            "there twice",
        ),
        (
            "system/a.yaml",
            "template: a\ninput:\n  schema: {type: object, additionalProperties: false}\npromptab: {extras: true}\n",
            4,
            "additionalProperties",
        ),
        ("message/a.md", "---\nmessages: [{role: user, content: Hi}]\n---\nHi\n", 2, "keep one"),
        ("message/a.md", "", None, "at least one message"),
        ("message/a.yaml", "messages: [{role: user, content: Hi}]\ntemplate: Hi\n", 2, "keep one"),
        ("message/a.yaml", "model: m\n", 1, "at least one message"),
        ("message/a.yaml", "messages:\n  - role: system\n    content: a\n  - Hi\n", 4, "role and content"),
        ("message/a.yaml", "messages:\n  - role: robot\n    content: a\n", 2, "one of system, user"),
        ("message/a.yaml", "messages:\n  - role: user\n    content: 3\n", 3, "has to be text"),
        ("message/a.yaml", "messages:\n  - role: user\n    text: a\n", 3, "unknown key 'text'"),
        ("message/a.yaml", "messages:\n  - role: user\n    content: |\n      a\n      {{ b\n", 5, "b|end of"),
        ("model/a.yaml", "description: nothing\n", 1, "model"),
        ("model/a.yaml", "model: m\ntemplate: Hi\n", 2, "unknown key 'template'"),
        ("model/a.md", "---\nmodel: m\n---\nHi\n", 4, "remove it"),
        ("config/a.yaml", "description: nothing\n", 1, "needs the key 'config'"),
        ("config/a.yaml", "config: {}\nmodel: m\n", 2, "unknown key 'model'"),
        ("user/a.json", '{\n  "template": "a",\n  "modle": "m"\n}', 3, "did you mean 'model'"),
        ("user/a.json", '{\n  "template": "a",\n  "template": "b"\n}', 3, "there twice"),
        ("user/a.json", '{\n  "template": "a",\n  "metadata": {"a": NaN}\n}', 3, "not valid JSON"),
        ("user/a.json", '{\n  "metadata": {"a": -Infinity}\n}', 2, "not a finite number"),
        ("user/a.json", '{\n  "metadata": {"a": 1e400}\n}', 2, "not a finite number"),
        ("user/a.json", '{\n  "metadata": {"a": ' + "9" * 100_000 + "}\n}", 2, "63 bits"),
        ("user/a.json", '{\n  "metadata": {"a": "\\u0000"}\n}', 2, "control character"),
        ("user/a.json", '{\n  "metadata": {"a": "\\ud800"}\n}', 2, "control character"),
        ("user/a.json", '{\n  "metadata": {"a": ' + "[" * 200_000, 2, "levels deep"),
        ("user/a.json", '{\n  "template": "a"\n} x', 3, "after the end"),
        ("user/a.json", '{\n  "template": "a",\n}', 3, "expected a key"),
        ("user/a.json", '{\n  "template" "a"\n}', 2, "expected ':'"),
        ("user/a.json", '{\n  "tools": [1 2]\n}', 2, "expected ','"),
        ("user/a.json", "{\n  \"template\": 'a'\n}", 2, "expected a JSON value"),
        ("user/a.json", '{\n  "template":\n', 3, "ends too early"),
        ("user/a.json", '{\n  "template": "a\n"}', 2, "not valid JSON"),
        ("user/a.json", '{\n  "template": 01\n}', 2, "expected ','"),
        ("user/a.json", '{\n  "template": "a\\n{% endif %}"\n}', 2, "line 2"),
        ("user/a.json", "", 1, "ends too early"),
        ("user/a.json", "[]", 1, "expected keys"),
        (
            "user/a.json",
            "\n" + '{"metadata": {' + ",".join(f'"{i}": 1' for i in range(20_001)) + "}}",
            2,
            "keys and",
        ),
    ],
)
def test_refused_file_is_named_with_its_line(
    tmp_path: Path, path: str, content: str | bytes, line: int | None, reason: str
) -> None:
    with pytest.raises(PromptFileError, match=reason) as refused:
        raise only_problem(tmp_path, path, content)
    assert refused.value.line == line


def test_bad_file_leaves_the_others_readable(tmp_path: Path) -> None:
    library = library_of(
        tmp_path, {"system/a.md": "A", "system/b.md": "{{", "user/a.md": "---\n", "user/c.md": "C"}
    )
    contents = library.load()
    assert list(contents.prompts) == [(PromptType.SYSTEM, "a"), (PromptType.USER, "c")]
    assert [(problem.path, problem.line) for problem in contents.problems] == [
        ("system/b.md", 1),
        ("user/a.md", 1),
    ]


def test_load_is_ordered_by_type_then_name(tmp_path: Path) -> None:
    files: Mapping[str, str | bytes] = {
        f"{kind}/{name}.md": "Hi" for kind in ("user", "system") for name in "bca"
    }
    contents = library_of(tmp_path, files).load()
    assert [file.path for file in contents.prompts.values()] == [
        f"{kind}/{name}.md" for kind in ("system", "user") for name in "abc"
    ]


def test_get_reads_one_prompt_and_says_why_it_cannot(tmp_path: Path) -> None:
    library = library_of(tmp_path, {"system/a.md": "A", "system/b.md": "{{"})
    source = library.get("a", "system")
    assert source is not None
    assert source.template == "A"
    assert library.get("a", PromptType.USER) is None
    with pytest.raises(PromptFileError, match=r"system/b\.md:1"):
        library.get("b", "system")
    with pytest.raises(InvalidInputError, match="prompt_type"):
        library.get("a", "sytem")


def test_path_of_finds_the_file_whether_or_not_it_is_good(tmp_path: Path) -> None:
    library = library_of(tmp_path, {"system/b.json": "{{"})
    assert library.path_of("b", "system") == tmp_path / "system" / "b.json"
    assert library.path_of("c", "system") is None


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (["system/a.md", "system/a.yaml"], "several files: system/a.md, system/a.yaml"),
        (["message/a.yaml", "messages/a.yaml"], "several files: message/a.yaml, messages/a.yaml"),
        (["system/Foo.md", "system/foo.md"], "case only.*: system/Foo.md, system/foo.md"),
        (["system/Foo.md", "system/foo.yaml"], "case only"),
    ],
)
def test_files_that_clash_are_one_problem_naming_all(tmp_path: Path, files: list[str], reason: str) -> None:
    library = library_of(tmp_path, dict.fromkeys(files, "template: Hi") | {"user/other.md": "Hi"})
    contents = library.load()
    assert list(contents.prompts) == [(PromptType.USER, "other")]
    [problem] = contents.problems
    with pytest.raises(PromptFileError, match=reason):
        raise problem
    folder, name = files[0].split("/")
    with pytest.raises(PromptFileError, match=reason):
        library.get(
            name.split(".")[0], PromptType.parse(folder.removesuffix("s") if folder == "messages" else folder)
        )


def test_same_name_in_two_types_is_two_prompts(tmp_path: Path) -> None:
    assert len(library_of(tmp_path, {"system/a.md": "A", "user/a.md": "A"}).load().prompts) == 2


def test_name_may_hold_dots(tmp_path: Path) -> None:
    assert only_source(tmp_path, "system/a.v2.md", "Hi").name == "a.v2"


def test_readme_lock_and_dot_files_are_left_alone(tmp_path: Path) -> None:
    files: Mapping[str, str | bytes] = {
        "README.md": "{{",
        "promptab.lock": "x",
        ".git/config": "x",
        "system/.a.md.swp": "x",
        "system/a.md": "Hi",
    }
    contents = library_of(tmp_path, files).load()
    assert contents.problems == ()
    assert len(contents.prompts) == 1


@pytest.mark.parametrize(
    ("path", "shown", "reason"),
    [
        ("notes.md", "notes.md", "expected the folders system, user, message, model, config"),
        ("sytem/a.md", "sytem", "did you mean system/?"),
        ("System/a.md", "System", "did you mean system/?"),
        ("system/deep/a.md", "system/deep", "is a folder"),
        ("system/a.txt", "system/a.txt", "names end in .md, .yaml, .yml, .json"),
        ("system/a", "system/a", "names end in"),
        ("system/a.MD", "system/a.MD", "names end in"),
        ("system/a b.md", "system/a b.md", "the file's name"),
        ("system/é.md", "system/é.md", "the file's name"),
        ("system/-a.md", "system/-a.md", "the file's name"),
        ("system/" + "a" * 129 + ".md", "system/" + "a" * 129 + ".md", "the file's name"),
    ],
)
def test_file_that_is_no_prompt_is_a_problem_that_says_what_was_expected(
    tmp_path: Path, path: str, shown: str, reason: str
) -> None:
    contents = library_of(tmp_path, {path: "Hi", "user/other.md": "Hi"}).load()
    assert list(contents.prompts) == [(PromptType.USER, "other")]
    [problem] = contents.problems
    assert problem.path == shown
    assert reason in str(problem)


@pytest.mark.parametrize("missing", ["nowhere", "file", "file/prompts", "nul\0", "a" * 300])
def test_folder_that_is_not_there_is_refused_at_the_first_call(tmp_path: Path, missing: str) -> None:
    (tmp_path / "file").write_text("x")
    library = FileSystemPromptLibrary(prompt_dir=tmp_path / missing)
    calls: list[Any] = [
        library.load,
        lambda: library.get("a", "system"),
        lambda: library.path_of("a", "system"),
    ]
    calls.append(lambda: library.write(PromptSource(name="a", prompt_type=PromptType.USER, template="Hi")))
    for call in calls:
        with pytest.raises(InvalidInputError) as refused:
            call()
        assert refused.value.field == "prompt_dir"


def test_prompt_dir_may_be_given_as_text(tmp_path: Path) -> None:
    library_of(tmp_path, {"system/a.md": "A"})
    assert FileSystemPromptLibrary(prompt_dir=str(tmp_path)).get("a", "system") is not None
