"""Chat templates: what real ones need works, and hostile ones end soon and harmlessly."""

from __future__ import annotations

from datetime import datetime

import jinja2
import pytest

from local_engine.errors import InvalidRequest
from local_engine.template import ChatTemplate

NOW = datetime(2026, 11, 20, 12, 0)
MESSAGES = [{"role": "user", "content": "Grüße <b>"}]


def render(source: str) -> str:
    return ChatTemplate(source, {"bos_token": "<s>"}).render(MESSAGES, now=NOW)


def test_messages_and_special_tokens_are_there() -> None:
    source = "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m['content'] }}{% endfor %}"

    assert render(source) == "<s>[user] Grüße <b>"


def test_blocks_leave_no_white_space_as_in_transformers() -> None:
    source = "{% for m in messages %}\n  {% if true %}\nx\n  {% endif %}\n{% endfor %}\n"

    assert render(source) == "x\n"


def test_what_templates_use_is_there() -> None:
    source = (
        "{%- set ns = namespace(n=0) -%}"
        "{%- for m in messages -%}{%- if m.role == 'tool' -%}{%- continue -%}{%- endif -%}"
        "{%- set ns.n = ns.n + 1 -%}{%- endfor -%}"
        "{%- macro shout(x) -%}{{ x | upper }}!{%- endmacro -%}"
        "{{ ns.n }} {{ shout(messages[0]['content'].strip()) }} {{ {'ä': [1, '<']} | tojson }} "
        "{{ strftime_now('%d %b %Y') }} {{ messages[-1].content.split('ü')[0] }} "
        "{{ tools is none }} {{ messages | map(attribute='role') | join(',') }} "
        "{{ 'a' ~ (1 + 2) }} {{ messages[:1] | length }} {{ 7 % 4 }} {{ 'x' * 3 }} "
        "{%- generation -%} kept{%- endgeneration -%}"
    )

    assert render(source) == (
        '1 GRÜSSE <B>! {"ä": [1, "<"]} 20 Nov 2026 Gr True user a3 1 3 xxxkept'
    )


def test_variables_of_a_request_reach_the_template_but_replace_nothing() -> None:
    template = ChatTemplate(
        "{{ think }} {{ bos_token }} {{ messages | length }}", {"bos_token": "<s>"}
    )

    text = template.render(
        MESSAGES, now=NOW, variables={"think": 0, "bos_token": "", "messages": []}
    )

    assert text == "0 <s> 1"


def test_a_refusing_template_is_the_clients_fault() -> None:
    with pytest.raises(InvalidRequest, match="roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}")


def test_messages_that_do_not_fit_the_template_are_the_clients_fault() -> None:
    with pytest.raises(InvalidRequest, match="does not fit"):
        render("{{ messages[0].content + 1 }}")


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{{ f(n - 1) }}{{ f(n - 1) }}{% endmacro %}{{ f(99) }}",
        "{% set ns = namespace(x='ab') %}{% for i in range(60) %}"
        "{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for i in range(60) %}"
        "{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}"
        "{% set ns.x = ns.x * 2 %}{% endfor %}",
        "{% set ns = namespace(x=3) %}{% for i in range(60) %}"
        "{% set ns.x = ns.x * ns.x %}{% endfor %}",
        "{% set x = 'a' * 100000 %}{% for i in range(9999) %}{{ x }}{% endfor %}",
        "{{ 'a' * 999999999 }}",
        "{{ 999999999 * 'a' }}",
        "{{ 9 ** 99999999 }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '%*d' % (999999999, 1) }}",
        "{{ '{:>999999999}'.format(1) }}",
        "{{ '{:>{}}'.format(1, 999999999) }}",
        "{{ 'a'.ljust(999999999) }}",
        "{{ 'a' | center(999999999) }}",
        "{{ 1.5 | round(999999999, 'ceil') }}",
        "{{ ('a' * 8000000).replace('a', 'b' * 8000000) }}",
        "{{ ('b' * 8000000) | replace('b', 'c' * 8000000) }}",
        "{{ ('a' * 8000000).join('b' * 8000000) }}",
        "{{ range(999999999) | list }}",
        "{{ lipsum(9999) }}",
    ],
)
def test_templates_that_want_too_much_are_stopped(source: str) -> None:
    with pytest.raises((InvalidRequest, jinja2.TemplateError)):
        render(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ self.__init__.__globals__ }}",
        "{{ raise_exception.__globals__['__builtins__'] }}",
        "{{ strftime_now.__closure__ }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{{ cycler.__init__ }}",
        "{{ (messages | attr('append'))(1) }}",
    ],
)
def test_templates_reach_nothing_outside(source: str) -> None:
    messages = [dict(m) for m in MESSAGES]
    try:
        text = ChatTemplate(source, {}).render(messages, now=NOW)
    except (InvalidRequest, jinja2.TemplateError):
        text = ""

    assert text == ""
    assert messages == MESSAGES


@pytest.mark.parametrize(
    "source", ["{% for %}", "{{ " + "(" * 5000 + ")" * 5000 + " }}", "x" * (1 << 19)]
)
def test_a_broken_or_monstrous_template_does_not_compile(source: str) -> None:
    with pytest.raises((jinja2.TemplateError, ValueError)):
        ChatTemplate(source, {})
