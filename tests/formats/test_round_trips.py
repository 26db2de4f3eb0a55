"""Whatever a format can say comes back from it with the same meaning: equal renderings for any values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptab.formats import Format, write_foreign
from promptab.formats.jinja_writing import literal
from promptab.library import PromptSource
from tests.formats.rendering import again, read, rendered

_letters = st.sampled_from("ab {}%#\\\n\t'\"$~-<>é") | st.characters(exclude_categories=["Cs", "Cc"])
texts = st.text(_letters, max_size=10)
values = st.fixed_dictionaries({
    "name": texts,
    "team": texts,
    "late": st.booleans(),
    "people": st.lists(st.fixed_dictionaries({"name": texts, "tags": st.lists(texts, max_size=2)}), max_size=2),
})  # fmt: skip

_variables = st.sampled_from(["{{ name }}", "{{ team }}", "{{name}}", "{{- team }}", "{{ name -}}"])
_plain = st.lists(texts.map(literal) | _variables, max_size=5).map("".join)
_conditions = st.sampled_from(
    ["late", "not late", "name", "name == team", "name != 'a'", "nick is defined and nick"]
)


def _blocks(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    signs = st.sampled_from(["", "-"])
    return st.one_of(
        st.tuples(_conditions, inner, inner, signs).map(
            lambda parts: (
                f"{{% if {parts[0]} {parts[3]}%}}{parts[1]}{{%{parts[3]} else %}}{parts[2]}{{% endif {parts[3]}%}}"
            )
        ),
        st.tuples(_conditions, _conditions, inner, signs).map(
            lambda parts: (
                f"{{% if {parts[0]} %}}{parts[2]}{{% elif {parts[1]} {parts[3]}%}}{parts[2]}{{% endif %}}"
            )
        ),
        st.tuples(inner, signs).map(
            lambda parts: (
                f"{{% for person in people {parts[1]}%}}{{{{ person.name }}}}{parts[0]}{{{{ loop.index0 }}}}"
                f"{{% if not loop.last %}}, {{% endif %}}{{%{parts[1]} endfor %}}"
            )
        ),
        inner.map(
            lambda body: (
                "{% for each in people %}{% for tag in each.tags %}{{ tag }}{{ each.name }}{{ team }}"
                f"{{% else %}}{body}{{% endfor %}}{{% endfor %}}"
            )
        ),
        st.tuples(inner, inner).map("\n".join),
    )


_logic = st.recursive(_plain, _blocks, max_leaves=6)
# a message that is blank, or begins or ends with a line break, is another message in some formats
_TEMPLATES: dict[Format, st.SearchStrategy[str]] = {
    Format.DOTPROMPT: _logic.map(lambda text: f"{text}x"),
    Format.PROMPTY: _logic.map(lambda text: f"x {text}x"),
    Format.GITHUB: st.lists(st.text("ab \n$%#'\"é", max_size=8) | _variables, max_size=5).map(
        lambda parts: "x".join(["", *parts, ""])
    ),
    Format.DATAKNOBS: _logic.map(lambda text: f"x{text}".replace("((", "(")),
    Format.LLM: _plain.map(lambda text: f"x{text}"),
}


def chats(form: Format) -> st.SearchStrategy[PromptSource]:
    text = _TEMPLATES[form]
    chat = st.tuples(text, text).map(
        lambda pair: PromptSource.model_validate({
            "name": "a", "prompt_type": "message",
            "messages": [{"role": "system", "content": pair[0]}, {"role": "user", "content": pair[1]}],
        })
    )  # fmt: skip
    kinds = st.sampled_from(["user"] if form is Format.LLM else ["user", "system"])
    alone = st.tuples(kinds, text).map(
        lambda pair: PromptSource.model_validate({"name": "a", "prompt_type": pair[0], "template": pair[1]})
    )
    return chat | alone


@pytest.mark.parametrize("form", list(Format))
@settings(deadline=None, max_examples=40)
@given(data=st.data(), variables=values)
def test_what_is_written_reads_back_with_the_same_meaning(
    form: Format, data: st.DataObject, variables: dict[str, Any]
) -> None:
    source = data.draw(chats(form))
    back = again(source, form).source
    assert back.prompt_type == source.prompt_type
    assert rendered(back, **variables) == rendered(source, **variables)
    assert rendered(back, **variables, nick="N") == rendered(source, **variables, nick="N")


@pytest.mark.parametrize("form", list(Format))
@settings(deadline=None, max_examples=12)
@given(data=st.data())
def test_the_second_trip_changes_nothing(form: Format, data: st.DataObject) -> None:
    once = again(data.draw(chats(form)), form).source
    assert write_foreign(again(once, form).source, form).text == write_foreign(once, form).text


parameters = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(0, 2), "top_p": st.floats(0, 1), "top_k": st.integers(1, 50),
        "max_output_tokens": st.integers(1, 9999), "stop_sequences": st.lists(texts, min_size=1, max_size=2),
        "seed": st.integers(0, 9),
    },
)  # fmt: skip
schemas = st.dictionaries(
    st.sampled_from(["name", "team"]),
    st.sampled_from([{"type": "string"}, {"type": "integer"}, {}]),
    min_size=1,
).map(lambda members: {"type": "object", "properties": members, "required": sorted(members)})
OUTPUT_FORMATS = {Format.DOTPROMPT: {"format": "json"}, Format.PROMPTY: {}, Format.GITHUB: {"format": "json"}}


@pytest.mark.parametrize("form", list(OUTPUT_FORMATS))
@settings(deadline=None, max_examples=25)
@given(
    model=st.sampled_from(["m", "a/b-1.5"]),
    given_=parameters,
    schema=schemas,
    description=texts.filter(str.strip),
)
def test_models_parameters_and_output_schemas_are_held(
    form: Format, model: str, given_: dict[str, Any], schema: dict[str, Any], description: str
) -> None:
    config = {"model": model, "output": {**OUTPUT_FORMATS[form], "schema": schema}}
    source = PromptSource.model_validate({
        "name": "a", "prompt_type": "user", "template": "Hi {{ name }}",
        "config": {**config, "parameters": given_} if given_ else config,
        "metadata": {"description": description},
    })  # fmt: skip
    exported = write_foreign(source, form)
    back = read(exported.text, form, path=exported.path).source
    assert exported.lost == ()
    assert _sorted(back.config) == _sorted(source.config)
    assert back.metadata["description"] == description


@settings(deadline=None, max_examples=25)
@given(validation=schemas, default=texts)
def test_schemas_and_defaults_of_variables_are_held(validation: dict[str, Any], default: str) -> None:
    source = PromptSource.model_validate({
        "name": "a", "prompt_type": "user", "template": "Hi {{ name }}",
        "validation": validation, "defaults": {"name": default},
    })  # fmt: skip
    back = again(source, Format.DOTPROMPT).source
    assert (back.validation, back.defaults) == (source.validation, source.defaults)
    from_prompty = again(source, Format.PROMPTY).source
    told = _sorted(from_prompty.validation)
    assert from_prompty.defaults == source.defaults
    assert told["required"] == validation["required"]
    assert validation["properties"].items() <= told["properties"].items()


def _sorted(value: Any) -> Any:
    """With the names of required members in order, which says nothing in a list of properties."""
    if isinstance(value, dict):
        return {key: sorted(inner) if key == "required" else _sorted(inner) for key, inner in value.items()}
    return value
