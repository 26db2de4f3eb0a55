"""Ways out of a sandbox that have worked somewhere, and must not here: no class, function or object."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptab.errors import InvalidInputError, TemplateError, VariableError
from promptab.models import MessageTemplate
from promptab.templates import Partial, compile_condition, compile_prompt, inspect_template
from promptab.templates.sandbox import ENVIRONMENT

VARIABLES: dict[str, Any] = {"x": "text", "xs": [1, 2], "d": {"k": "v", "__class__": "mine"}, "n": 7}

PAYLOADS = [
    # walks from a value to its class and on to everything
    "{{ x.__class__ }}",
    "{{ x.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''.__class__.__base__.__subclasses__()[40]('/etc/passwd').read() }}",
    "{{ x['__class__'] }}",
    "{{ x['__cla' ~ 'ss__'] }}",
    "{{ x['__cla' 'ss__'] }}",
    "{{ x['\\x5f\\x5fclass\\x5f\\x5f'] }}",
    "{{ x[['__class', '__']|join] }}",
    "{{ x['%c%cclass%c%c'|format(95, 95, 95, 95)] }}",
    "{{ x['__ssalc__'|reverse] }}",
    "{{ (1).__class__ }}",
    "{{ [].__class__ }}",
    "{{ none.__class__ }}",
    "{{ n.real.__class__ }}",
    "{{ n.bit_length() }}",
    "{{ x.encode() }}",
    "{{ x.translate({}) }}",
    # filters that take the name of an attribute or of a filter
    "{{ x|attr('__class__') }}",
    "{{ x|attr('\\x5f\\x5fclass\\x5f\\x5f') }}",
    "{{ x|attr('form' ~ 'at') }}",
    "{{ xs|map('attr', 'format')|list }}",
    "{{ xs|map('attr', '__class__')|list }}",
    "{{ [x]|map(attribute='__class__')|list }}",
    "{{ [x]|map(attribute='__class__.__base__')|list }}",
    "{{ [x]|sort(attribute='__class__') }}",
    "{{ [x]|groupby('__class__') }}",
    "{{ [x]|sum(attribute='__class__') }}",
    "{{ [x]|join(attribute='__class__') }}",
    "{{ [x]|unique(attribute='__class__') }}",
    "{{ [x]|min(attribute='__class__') }}",
    "{{ [x]|selectattr('__class__')|list }}",
    "{{ [namespace(a=1)]|map(attribute='__class__')|list }}",
    "{{ [namespace(a=1)]|map(attribute='_Namespace__attrs')|list }}",
    "{{ [xs]|map('for each', 1)|list }}",
    # formats with fields (CVE-2016-10745, CVE-2019-10906, CVE-2024-56326, CVE-2025-27516)
    "{{ '{0.__class__}'.format(x) }}",
    "{{ '{0[__class__]}'.format(x) }}",
    "{{ '{a.__class__}'.format_map({'a': x}) }}",
    "{{ '{a:{b.__class__}}'.format(a=x, b=x) }}",
    "{% set f = '{0.__class__}'.format %}{{ f(x) }}",
    "{% set f = '{0.__class__}'['format'] %}{{ f(x) }}",
    "{% set ns = namespace(f=x.format) %}{{ ns.f(x) }}",
    "{% macro m(f) %}{{ f(x) }}{% endmacro %}{{ m('{0.__class__}'.format) }}",
    "{{ ['{0.__class__}'.format]|map('call')|list }}",
    "{{ ('{0.__class__}'|attr('format'))(x) }}",
    "{{ '%(a.__class__)s'|format(a=x) }}",
    "{{ x.format }}",
    # what the environment brings along
    "{{ self }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{{ lipsum(n=9) }}",
    "{{ cycler.__init__.__globals__.os }}",
    "{{ cycler(1, 2).next() }}",
    "{{ joiner.__init__ }}",
    "{{ joiner()() }}",
    "{{ dict(a=1) }}",
    "{{ dict['x'].mro() }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ namespace.run }}",
    "{{ namespace }}",
    "{{ namespace() }}",
    "{{ [namespace(a=1)] }}",
    "{{ namespace(a=1)|tojson }}",
    "{{ range }}",
    "{{ range.run }}",
    "{{ [range] }}",
    "{{ range ~ '' }}",
    "{{ context }}",
    "{{ environment }}",
    "{{ budget }}",
    "{{ guards }}",
    "{{ config }}",
    "{{ request.application.__globals__ }}",
    "{{ get_flashed_messages.__globals__ }}",
    "{{ url_for.__globals__ }}",
    "{{ __import__('os') }}",
    "{{ __builtins__ }}",
    "{{ _ }}",
    # printing what is not data
    "{% macro m() %}{% endmacro %}{{ m }}",
    "{% macro m() %}{% endmacro %}{{ m.name }}",
    "{% macro m() %}{% endmacro %}{{ m.macro }}",
    "{% macro m() %}{% endmacro %}{{ m.cost }}",
    "{% macro m() %}{% endmacro %}{{ m|string }}",
    "{% macro m() %}{% endmacro %}{{ m ~ 'x' }}",
    "{% macro m() %}{% endmacro %}{{ [m] }}",
    "{% macro m() %}{% endmacro %}{{ {'k': [m]} }}",
    "{% macro m() %}{% endmacro %}{{ m|tojson }}",
    "{% macro m() %}{% endmacro %}{{ '%s' % m }}",
    "{% macro m() %}{% endmacro %}{{ '%r'|format(m) }}",
    "{% macro m() %}{% endmacro %}{{ [m]|join }}",
    "{% macro m() %}{% endmacro %}{{ m|e }}",
    "{% macro m() %}{% endmacro %}{{ m == m }}",
    "{% macro m() %}{% endmacro %}{{ [m, m]|sort }}",
    "{% macro m() %}{% endmacro %}{% set a, b = m %}{{ a }}",
    "{% macro m() %}{% endmacro %}{{ m|first }}",
    "{% macro m() %}{% endmacro %}{% for part in m %}{{ part }}{% endfor %}",
    "{% macro m() %}{{ caller }}{% endmacro %}{% call m() %}{% endcall %}",
    "{% macro m() %}{{ varargs.__class__ }}{% endmacro %}{{ m(1) }}",
    "{% for i in xs %}{{ loop }}{% endfor %}",
    "{% for i in xs %}{{ loop.__init__ }}{% endfor %}",
    "{% for i in xs %}{{ loop._iterator }}{% endfor %}",
    "{% for i in xs %}{{ loop['_iterator'] }}{% endfor %}",
    "{% for i in xs %}{{ loop['__class__'] }}{% endfor %}",
    "{% for i in xs %}{{ loop.cycle }}{% endfor %}",
    "{% for i in xs %}{{ loop.changed.__func__ }}{% endfor %}",
    "{% for i in xs %}{{ [loop]|map(attribute='_iterator')|list }}{% endfor %}",
    "{% for i in xs %}{% set a, b = loop %}{{ b }}{% endfor %}",
    "{% call namespace() %}{% endcall %}",
    "{% macro m() %}{% call range(1) %}{% endcall %}{% endmacro %}{{ m() }}",
    # changing the caller's data
    "{{ xs.append(1) }}",
    "{{ xs.pop() }}",
    "{{ xs.clear() }}",
    "{{ d.update({'a': 1}) }}",
    "{{ d.pop('k') }}",
    "{{ d.setdefault('z', 1) }}",
    "{% set d.k = 1 %}",
    "{% set xs[0] = 1 %}",
    "{% set ns = namespace(d) %}{% set ns.__class__ = 1 %}",
    # names that Python folds into other names
    "{{ ﬁ }}",
    "{{ x.a(ﬁ=1) }}",
    "{% set ﬁ = 1 %}",
    "{% macro m(ﬁ) %}{% endmacro %}",
    "{% for ﬁ in xs %}{% endfor %}",
    "{% with ﬁ = 1 %}{% endwith %}",
    "{% set ns.ﬁ = 1 %}",
    "{{ 𝐱 }}",  # noqa: RUF001 - the point of the case
    # files and other templates
    "{% include '/etc/passwd' %}",
    "{% include '../../etc/passwd' %}",
    "{% include x %}",
    "{% import 'os' as os %}",
    "{% from 'os' import path %}",
    "{% extends 'base' %}",
    "{% extends x %}",
    "{% block a %}{% endblock %}",
    "{% do x.pop() %}",
    "{% debug %}",
    "{% trans %}x{% endtrans %}",
    "{% autoescape true %}{{ x }}{% endautoescape %}",
]


def render(source: str, variables: dict[str, Any]) -> str:
    return compile_prompt(messages=[MessageTemplate(role="user", content=source)]).text(variables)


@pytest.mark.parametrize("source", PAYLOADS)
def test_payload_is_refused_and_its_error_tells_nothing(source: str) -> None:
    with pytest.raises((TemplateError, VariableError)) as caught:
        render(
            source, {name: VARIABLES[name] for name in inspect_template(source).variables & VARIABLES.keys()}
        )
    message = str(caught.value)
    assert " at 0x" not in message
    assert "<class" not in message
    assert "jinja2" not in message
    assert ".py" not in message


@pytest.mark.parametrize("source", [payload[3:-3] for payload in PAYLOADS if payload.startswith("{{ ")])
def test_payload_is_refused_as_a_condition(source: str) -> None:
    with pytest.raises((TemplateError, VariableError)):
        compile_condition(f"({source}) ~ ''").holds(VARIABLES)


def test_a_member_of_an_object_is_found_by_name_whatever_python_calls_it() -> None:
    assert render("{{ d['__cla' ~ 'ss__'] }}{{ d.items()|length }}", {"d": VARIABLES["d"]}) == "mine2"


def test_values_with_names_of_methods_shadow_nothing() -> None:
    assert (
        render("{{ d.items }} {{ d.get('items') }} {{ d.items()|length }}", {"d": {"items": "mine"}})
        == "mine mine 1"
    )


def test_identifiers_that_differ_only_in_normal_form_are_not_mixed_up() -> None:
    with pytest.raises(TemplateError, match="characters other than A-Z"):
        inspect_template("{{ ﬁ }}|{{ fi }}")
    with pytest.raises(VariableError, match="unknown variable 'ﬁ'"):
        render("{{ fi }}", {"fi": "B", "ﬁ": "A"})


def test_the_name_of_a_template_is_never_code() -> None:
    hostile = "{0.__class__}\"'\n + __import__('os').system('true') #{{ 7 * 7 }}"
    with pytest.raises(TemplateError) as caught:
        compile_prompt(
            messages=[MessageTemplate(role="user", content="{{ 'a' if x else 1 / 0 }}")], name=hostile
        ).text({"x": False})
    assert caught.value.template == hostile


def test_a_reference_of_an_include_is_never_code() -> None:
    hostile = "{0}\\\"' ~ __import__('os') #"
    source = "{% include '" + hostile.replace("\\", "\\\\").replace("'", "\\'") + "' %}"
    compiled = compile_prompt(
        messages=[MessageTemplate(role="user", content=source)], includes={hostile: Partial("fine")}
    )
    assert compiled.text({}) == "fine"


def test_environment_has_no_loader_no_globals_and_only_own_filters() -> None:
    assert ENVIRONMENT.loader is None
    assert ENVIRONMENT.globals == {}
    assert {function.__module__.split(".")[0] for function in ENVIRONMENT.filters.values()} == {"promptab"}
    assert {function.__module__.split(".")[0] for function in ENVIRONMENT.tests.values()} == {"promptab"}


@given(st.text(), st.text())
def test_a_text_in_a_template_literal_is_only_a_text(text: str, name: str) -> None:
    literal = "".join(f"\\U{ord(character):08x}" for character in text)
    assert render("{{ '" + literal + "' }}", {}) == text
    if not name.startswith("__"):  # which is private
        member = "".join(f"\\U{ord(character):08x}" for character in name)
        assert render("{{ d['" + member + "'] }}", {"d": {name: text}}) == text


def test_value_whose_class_misbehaves_is_copied_not_called() -> None:
    class Loud(str):
        __slots__ = ()

        def __str__(self) -> str:
            raise AssertionError("a template reached into the caller's object")

        __format__ = __repr__ = upper = __len__ = __eq__ = __hash__ = __str__  # type: ignore[assignment]

    assert render("{{ v|upper }}{{ v ~ v }}{{ v|length }}{{ '%s' % v }}", {"v": Loud("ab")}) == "ABabab2ab"


def test_refusal_of_an_object_does_not_print_it() -> None:
    class Secretive:
        def __repr__(self) -> str:
            return "hunter2"

    with pytest.raises(InvalidInputError) as caught:
        render("{{ v }}", {"v": [Secretive()]})
    assert "hunter2" not in str(caught.value)
    assert "variable v[0] is of type Secretive" in str(caught.value)
