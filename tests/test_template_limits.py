"""Templates that cost too much are refused before they cost it: every limit, and every way known to get around one."""

# ruff: noqa: E501 - one template a line

from __future__ import annotations

import sys
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptab.errors import InvalidInputError, PromptabError, TemplateError, TemplateLimitError, VariableError
from promptab.models import MessageTemplate
from promptab.templates import Limits, Partial, compile_condition, compile_prompt, inspect_template

VARIABLES: dict[str, Any] = {"n": 10**7, "s": "a" * 10_000, "xs": [3, 1, 2], "d": {"k": "v"}, "t": "x"}

DOUBLING = "{% set ns = namespace(a=START) %}{% for i in range(60) %}{% set ns.a = STEP %}{% endfor %}{{ ns.a|length }}"
NEST = "{% set ns = namespace(a=1, b=1) %}{% for i in range(31) %}{% set ns.a = [ns.a, ns.a] %}{% set ns.b = [ns.b, ns.b] %}{% endfor %}"

BOMBS = {
    "power": "{{ 3 ** n }}",
    "power, compared": "{% set n = 10**7 * 3 %}{{ 3 ** n > 1 }}",
    "power of powers": "{{ 9 ** 9 ** 9 }}",
    "power of negative": "{{ (-7) ** n }}",
    "factor by factor": "{% set ns = namespace(a=2) %}{% for i in range(99) %}{% set ns.a = ns.a * ns.a %}{% endfor %}{{ ns.a }}",
    "sum by sum": "{% set ns = namespace(a=2) %}{% for i in range(999) %}{% set ns.a = ns.a + ns.a %}{% endfor %}{{ ns.a }}",
    "text times number": "{{ 'a' * 999999999 }}",
    "number times text": "{{ 999999999 * 'a' }}",
    "constant in a dead branch of work": "{% if 'a' * 999999999 %}x{% endif %}",
    "list times number": "{{ [0] * 10**9 }}",
    "format width": "{{ '%1000000000d' % 1 }}",
    "format precision": "{{ '%.1000000000f' % 1.5 }}",
    "format filter": "{{ '%1000000000s'|format('x') }}",
    "format of many": "{{ ('%1000d' * 9999) % 1 }}",
    "center": "{{ t|center(10**9) }}",
    "center method": "{{ t.center(10**9) }}",
    "ljust": "{{ t.ljust(10**9) }}",
    "rjust": "{{ t.rjust(10**9) }}",
    "zfill": "{{ t.zfill(10**9) }}",
    "indent": "{{ t|indent(10**9, true) }}",
    "indent of lines": "{{ ('x\n' * 9999)|indent('y' * 9999) }}",
    "replace": "{{ s|replace('a', s) }}",
    "replace nothing": "{{ s|replace('', s) }}",
    "replace method": "{{ s.replace('a', s) }}",
    "join": "{{ s|list|join(s) }}",
    "join method": "{{ s.join(s|list) }}",
    "wordwrap": "{{ s|wordwrap(1, true, s) }}",
    "tilde doubling": DOUBLING.replace("START", "'xx'").replace("STEP", "ns.a ~ ns.a"),
    "plus doubling": DOUBLING.replace("START", "'xx'").replace("STEP", "ns.a + ns.a"),
    "list doubling": DOUBLING.replace("START", "[1]").replace("STEP", "ns.a + ns.a"),
    "upper doubling": DOUBLING.replace("START", "'xx'").replace("STEP", "[ns.a, ns.a]|map('upper')|join"),
    "block doubling": DOUBLING.replace("START", "'xx'").replace(
        "{% set ns.a = STEP %}", "{% set b %}{{ ns.a }}{{ ns.a }}{% endset %}{% set ns.a = b %}"
    ),
    "print of shared nests": NEST + "{{ ns.a }}",
    "json of shared nests": NEST + "{{ ns.a|tojson }}",
    "format of shared nests": NEST + "{{ '%s' % [ns.a] }}",
    "comparison of shared nests": NEST + "{{ ns.a == ns.b }}",
    "order of shared nests": NEST + "{{ [ns.a, ns.b]|sort }}",
    "maximum of shared nests": NEST + "{{ [ns.a, ns.b]|max }}",
    "membership of shared nests": NEST + "{{ ns.a in [ns.b] }}",
    "test of shared nests": NEST + "{{ ns.a is eq(ns.b) }}",
    "change of shared nests": "{% for x in xs %}"
    + NEST
    + "{{ loop.changed(ns.a) }}{{ loop.changed(ns.b) }}{% endfor %}",
    "deep nest": "{% set ns = namespace(a=1) %}{% for i in range(9999) %}{% set ns.a = [ns.a] %}{% endfor %}{{ ns.a }}",
    "nested loops": "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
    "loops over one list": "{% for i in xs * 9 %}" * 9 + "x" + "{% endfor %}" * 9,
    "loops over a text": "{% for a in s %}{% for b in s %}x{% endfor %}{% endfor %}",
    "loops with a test": "{% for i in range(9999) if range(9999) %}{{ i }}{% endfor %}",
    "range": "{{ range(10**9)|length }}",
    "range past the word": "{{ range(2**200) }}",
    "recursive macro": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "branching macro": "{% macro m(k) %}{% if k %}{{ m(k-1) }}{{ m(k-1) }}{% endif %}{% endmacro %}{{ m(22) }}",
    "macro by macro": "{% macro m(f) %}{{ f(f) }}{% endmacro %}{{ m(m) }}",
    "caller": "{% macro m() %}{{ caller() }}{% endmacro %}{% macro r() %}{% call m() %}{{ r() }}{% endcall %}{% endmacro %}{{ r() }}",
    "recursive loop": "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "branching loop": "{% for x in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "slice": "{{ xs|slice(10**8) }}",
    "slice filled": "{{ xs|slice(10**8, 0) }}",
    "batch filled": "{{ xs|batch(10**8, 0) }}",
    "reverse search": "{{ (s * 90).rfind('b' ~ s * 40) }}",
    "strip": "{{ (s * 90).strip('b' * 400000 ~ 'a') }}",
    "trim": "{{ (s * 90)|trim('b' * 400000) }}",
    "split": "{% for i in range(999) %}{% set x = (s * 9).split('a') %}{% endfor %}",
    "sorts": "{% for i in range(999) %}{% set x = range(9999)|sort %}{% endfor %}",
    "filter in a loop": "{% for i in range(9999) %}{% set x = s|list %}{% endfor %}",
    "large output": "{% for i in range(99999) %}{{ s }}{% endfor %}",
    "large output of constants": "{% for i in range(90000) %}" + "x" * 9000 + "{% endfor %}",
    "integer out of text": "{{ ('f' * 400)|int(0, 16) }}",
    "width past the word": "{{ t|center(2**200) }}",
    "json indent": "{{ xs|tojson(indent=16) ~ (range(9999)|list|tojson(indent=16)) * 99 }}",
}


def render(source: str, limits: Limits = Limits(), **options: Any) -> str:  # noqa: B008 - a NamedTuple does not change
    names = inspect_template(source, limits=limits).variables
    compiled = compile_prompt(
        messages=[MessageTemplate(role="user", content=source)], limits=limits, **options
    )
    return compiled.text({name: VARIABLES[name] for name in names})


@pytest.mark.parametrize("source", BOMBS.values(), ids=BOMBS.keys())
def test_bomb_is_refused_before_it_takes_memory(source: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(TemplateLimitError, match=r"limit `|is too large|characters wide"):
            render(source)
        assert tracemalloc.get_traced_memory()[1] < 80_000_000
    finally:
        tracemalloc.stop()


HUGE_SOURCES = {
    "parentheses": "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}",
    "unclosed parentheses": "{{ " + "(" * 20_000 + " }}",
    "lists": "{{ " + "[" * 20_000 + "]" * 20_000 + " }}",
    "nots": "{{ " + "not " * 20_000 + "1 }}",
    "signs": "{{ " + "-" * 20_000 + "1 }}",
    "sums": "{{ " + "1+" * 20_000 + "1 }}",
    "comparisons": "{{ 1" + " < 2" * 20_000 + " }}",
    "tildes": "{{ 1" + " ~ 2" * 20_000 + " }}",
    "attributes": "{{ t" + ".a" * 20_000 + " }}",
    "subscripts": "{{ t" + "[0]" * 20_000 + " }}",
    "filters": "{{ t" + "|e" * 20_000 + " }}",
    "inline ifs": "{{ " + "1 if t else " * 8_000 + "2 }}",
    "ifs": "{% if t %}" * 4_000 + "{% endif %}" * 4_000,
    "elifs": "{% if t %}" + "{% elif t %}" * 8_000 + "{% endif %}",
    "calls": "{{ " + "t.a(" * 9_000 + ")" * 9_000 + " }}",
    "arguments": "{{ range(" + "1," * 40_000 + ") }}",
    "outputs": "{{t}}" * 20_000,
    "sets": "{% set a = 1 %}" * 6_000,
    "characters": "x" * 100_001,
}


@pytest.mark.parametrize("source", HUGE_SOURCES.values(), ids=HUGE_SOURCES.keys())
def test_huge_source_is_refused(source: str) -> None:
    with pytest.raises(TemplateLimitError):
        inspect_template(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ " + "9" * 5_000 + " }}",
        "{{ 0x" + "f" * 5_000 + " }}",
        "{{ " + "1_" * 3_000 + "1 }}",
        "{{ 1e999 }}",
        "{% for a in xs %}" * 25 + "{% endfor %}" * 25,
        "{% macro m(a, a) %}{% endmacro %}",
        "{{ range(a=1, a=2) }}",
    ],
    ids=["decimal", "hexadecimal", "underscores", "float", "25 loops", "parameters", "arguments"],
)
def test_source_that_python_cannot_compile_is_a_template_error(source: str) -> None:
    with pytest.raises(TemplateError):
        inspect_template(source)


@pytest.mark.parametrize(
    ("limits", "source", "named"),
    [
        (Limits(source_chars=9), "0123456789", "source_chars"),
        (Limits(syntax_nodes=9), "{{ 1 }}" * 10, "syntax_nodes"),
        (Limits(nesting=9), "{% if 1 %}" * 10 + "{% endif %}" * 10, "nesting"),
        (
            Limits(depth=9),
            "{% macro m(k) %}{% if k %}{{ m(k - 1) }}{% endif %}{% endmacro %}{{ m(9) }}",
            "depth",
        ),
        (Limits(steps=99), "{% for i in range(50) %}{{ i }}{% endfor %}", "steps"),
        (Limits(built_chars=9), "{{ '01234' ~ '56789' }}", "built_chars"),
        (Limits(output_chars=9), "0123456789", "output_chars"),
        (Limits(int_bits=9), "{{ 2 ** 9 }}", "int_bits"),
        (Limits(value_depth=2), "{{ [[[1]]] }}", "value_depth"),
    ],
)
def test_each_limit_is_named_when_it_is_reached(limits: Limits, source: str, named: str) -> None:
    with pytest.raises(TemplateLimitError, match=f"limit `{named}`"):
        render(source, limits)


@pytest.mark.parametrize(
    ("limits", "source", "text"),
    [
        (Limits(source_chars=10), "0123456789", "0123456789"),
        (Limits(depth=10), "{% macro m(k) %}{% if k %}{{ m(k - 1) }}{% endif %}{% endmacro %}{{ m(9) }}", ""),
        (Limits(built_chars=10), "{{ '01234' ~ '56789' }}", "0123456789"),
        (Limits(output_chars=10), "0123456789", "0123456789"),
        (Limits(int_bits=9), "{{ 2 ** 8 }}", "256"),
        (Limits(value_depth=3), "{{ [[[1]]] }}", "[[[1]]]"),
    ],
)
def test_what_just_fits_a_limit_renders(limits: Limits, source: str, text: str) -> None:
    assert render(source, limits) == text


def test_output_limit_counts_all_messages() -> None:
    messages = [MessageTemplate(role="user", content="01234") for _ in range(3)]
    limits = Limits(output_chars=14)
    with pytest.raises(TemplateLimitError, match="output_chars"):
        compile_prompt(messages=messages, limits=limits).render({})
    assert len(compile_prompt(messages=messages[:2], limits=limits).render({})) == 2


def test_variables_count_against_their_limits() -> None:
    compiled = compile_prompt(
        messages=[MessageTemplate(role="user", content="{{ v|length }}")],
        limits=Limits(value_items=9, int_bits=9),
    )
    assert compiled.text({"v": [1] * 9}) == "9"
    for refused in ([1] * 10, [[1] * 5, [1] * 5], {"k": [1] * 9}, [512]):
        with pytest.raises(VariableError):
            compiled.text({"v": refused})


def test_budget_is_the_same_at_each_render() -> None:
    source = "{% for i in range(n) %}{{ i }}{% endfor %}"
    compiled = compile_prompt(
        messages=[MessageTemplate(role="user", content=source)], limits=Limits(steps=1_000)
    )
    for _ in range(3):
        assert len(compiled.text({"n": 100})) == 190
        with pytest.raises(TemplateLimitError):
            compiled.text({"n": 1_000})


def test_the_limit_is_reached_at_the_same_point_however_deep_the_caller_is() -> None:
    calls = "{% macro m(k) %}{% if k %}{{ m(k - 1) }}{% endif %}{% endmacro %}{{ m(23) }}"
    source = f"{calls}{{{{ {'(' * 19}1{')' * 19} }}}}"

    def deeper(levels: int) -> str:
        return render(source) if levels == 0 else deeper(levels - 1)

    assert deeper(0) == deeper(sys.getrecursionlimit() // 4) == "1"


def test_includes_that_double_at_each_level_are_counted() -> None:
    partial = Partial("x")
    for _ in range(20):
        partial = Partial("{% include 'p' %}{% include 'p' %}", {}, {"p": partial})
    with pytest.raises(TemplateLimitError, match="steps"):
        render("{% include 'p' %}", includes={"p": partial})


def test_includes_that_nest_too_deep_are_refused() -> None:
    partial = Partial("x")
    for _ in range(100):
        partial = Partial("{% include 'p' %}", {}, {"p": partial})
    with pytest.raises(TemplateLimitError, match="depth"):
        render("{% include 'p' %}", includes={"p": partial})


def test_includes_that_contain_themselves_are_refused() -> None:
    includes: dict[str, Partial] = {}
    includes["p"] = Partial("{% include 'p' %}", {}, includes)
    assert includes["p"].includes is includes
    with pytest.raises(TemplateLimitError, match="nest"):
        render("{% include 'p' %}", includes=includes)


def test_too_many_includes_are_refused() -> None:
    includes = {f"p{number}": Partial("x") for number in range(101)}
    source = "".join(f"{{% include '{reference}' %}}" for reference in includes)
    with pytest.raises(TemplateLimitError, match="includes more than 100"):
        render(source, includes=includes)


def test_include_in_a_loop_pays_for_its_body_each_time() -> None:
    with pytest.raises(TemplateLimitError, match="steps"):
        render(
            "{% for i in range(9999) %}{% include 'p' %}{% endfor %}",
            includes={"p": Partial("{{ 1 }}" * 200)},
        )


@pytest.mark.parametrize(
    "expression", ["9 ** 9 ** 9 > 1", "'a' * 10**9 == 'b'", "range(10**9)", "a" * 4_001, "(" * 999]
)
def test_condition_has_limits_too(expression: str) -> None:
    with pytest.raises(TemplateLimitError):
        compile_condition(expression).holds({})


# --- templates made by chance

# values also for the names that loops, macros and namespaces give a meaning of their own
ANYTHING = {**VARIABLES, "i": 2, "loop": [1], "m": "m", "caller": None, "ns": {"k": 1}}

NAMES = st.sampled_from(["t", "n", "xs", "d", "s", "i", "loop", "m", "ns", "range", "caller"])
LITERALS = st.sampled_from(
    [
        "1",
        "-1",
        "0",
        "10**9",
        "1.5",
        "'a'",
        "'%9999d'",
        "''",
        "true",
        "none",
        "[1, 'a']",
        "{'k': [1]}",
        "()",
        "2**250",
    ]
)
FILTERS = st.sampled_from(
    ["upper", "join", "sort", "center(99)", "center(-1)", "indent", "int", "round(3)", "round", "list", "first", "last", "tojson",
     "replace('a', 'bb')", "format(1, 2)", "map('upper')", "map(attribute='k')", "select('odd')", "batch(2)", "slice(3)", "groupby('k')",
     "unique", "sum", "max", "dictsort", "items", "default(1)", "reverse", "wordwrap(3)", "truncate(5)", "title", "length", "abs",
     "tojson(indent=99)", "min(attribute=0)", "join(1, 2)", "map('map', 'map')", "select('in', 'abc')", "trim(1)", "int(base=99)"]
)  # fmt: skip
METHODS = st.sampled_from(
    [
        "upper()",
        "items()",
        "split('a')",
        "get('k')",
        "format(1)",
        "cycle(1, 2)",
        "k",
        "index",
        "find(1)",
        "strip('a', 'b')",
        "zfill('a')",
    ]
)
OPERATORS = st.sampled_from(
    [
        "+",
        "-",
        "*",
        "/",
        "//",
        "%",
        "**",
        "~",
        "==",
        "<",
        "in",
        "not in",
        "and",
        "or",
        "is eq",
        "is divisibleby",
    ]
)


def _larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, OPERATORS, inner).map(" ".join).map("({})".format),
        st.tuples(inner, FILTERS).map("|".join).map("({})".format),
        st.tuples(inner, METHODS).map(".".join),
        st.tuples(inner, inner).map(lambda pair: f"{pair[0]}[{pair[1]}]"),
        st.tuples(inner, inner, inner).map(lambda parts: f"{parts[0]}[{parts[1]}:{parts[2]}]"),
        st.tuples(NAMES, inner).map(lambda pair: f"{pair[0]}({pair[1]})"),
        inner.map("[{}]".format),
        inner.map("(not {})".format),
        inner.map("(-{})".format),
    )


EXPRESSIONS = st.recursive(st.one_of(NAMES, LITERALS), _larger, max_leaves=5)


def _wrapped(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(EXPRESSIONS, inner).map(lambda pair: f"{{% for i in {pair[0]} %}}{pair[1]}{{% endfor %}}"),
        st.tuples(EXPRESSIONS, inner).map(
            lambda pair: f"{{% for i in {pair[0]} recursive %}}{pair[1]}{{% endfor %}}"
        ),
        st.tuples(EXPRESSIONS, inner).map(lambda pair: f"{{% if {pair[0]} %}}{pair[1]}{{% endif %}}"),
        st.tuples(NAMES, EXPRESSIONS, inner).map(
            lambda parts: f"{{% set {parts[0]} = {parts[1]} %}}{parts[2]}"
        ),
        st.tuples(EXPRESSIONS, inner).map(
            lambda pair: f"{{% macro m(t={pair[0]}) %}}{pair[1]}{{% endmacro %}}{{{{ m() }}}}"
        ),
        st.tuples(FILTERS, inner).map(lambda pair: f"{{% filter {pair[0]} %}}{pair[1]}{{% endfilter %}}"),
        st.tuples(EXPRESSIONS, inner).map(
            lambda pair: f"{{% set ns = namespace(k={pair[0]}) %}}{{% set ns.k = ns %}}{pair[1]}"
        ),
        st.tuples(NAMES, EXPRESSIONS, inner).map(
            lambda parts: f"{{% call(i) {parts[0]}({parts[1]}) %}}{parts[2]}{{% endcall %}}"
        ),
        st.tuples(EXPRESSIONS, FILTERS, inner).map(
            lambda parts: f"{{% set t|{parts[1]} %}}{parts[2]}{{% endset %}}{{{{ {parts[0]} }}}}{{{{ t }}}}"
        ),
        st.tuples(inner, inner).map("".join),
    )


TEMPLATES = st.recursive(EXPRESSIONS.map("{{{{ {} }}}}".format), _wrapped, max_leaves=4)


@settings(max_examples=800, deadline=None)
@given(TEMPLATES)
def test_no_template_raises_a_foreign_exception(source: str) -> None:
    limits = Limits(steps=20_000, built_chars=200_000)
    try:
        compiled = compile_prompt(messages=[MessageTemplate(role="user", content=source)], limits=limits)
        text = compiled.text({name: ANYTHING[name] for name in compiled.variables & ANYTHING.keys()})
    except PromptabError as error:
        assert isinstance(error, TemplateError | TemplateLimitError | VariableError)  # noqa: PT017 - success is fine too
        text = str(error)
    assert "<" not in text or " at 0x" not in text
    assert "jinja2." not in text
    assert "promptab." not in text


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "{{",
                "}}",
                "{%",
                "%}",
                "{#",
                "#}",
                "-",
                " ",
                "if",
                "for",
                "x",
                "in",
                "end",
                "'",
                '"',
                "(",
                ")",
                "\\",
                "\r",
                "|",
                ".",
                "set",
                "=",
                "\0",
                "é",
                "raw",
                "macro",
                "1",
            ]
        )
    )
)
def test_no_text_raises_a_foreign_exception(parts: list[str]) -> None:
    try:
        inspect_template("".join(parts))
    except InvalidInputError as error:
        assert isinstance(error, TemplateError | TemplateLimitError)  # noqa: PT017 - success is fine too
