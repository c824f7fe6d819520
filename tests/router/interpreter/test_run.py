# ruff: noqa: E501 - programs, a line each
"""The interpreter does what Python does, or says that it cannot tell, and takes little."""

from __future__ import annotations

import ast

import pytest

from router.interpreter.bounds import CannotTell
from router.interpreter.run import parsed, value_of


def _value(code, call):
    node = ast.parse(call).body[0]
    return value_of(node.value, parsed(code))


PROGRAMS = [
    ("def f(n):\n    return n * 2 + 1", "f(20)", 41),
    ("def f(a, b=3, *c):\n    return a, b, c", "f(1), f(1, 2, 3, 4), f(b=5, a=1)",
     ((1, 3, ()), (1, 2, (3, 4)), (1, 5, ()))),
    ("def f(s):\n    out = []\n    for i, c in enumerate(s):\n        if i % 2: continue\n"
     "        if c == 'z': break\n        out.append(c.upper())\n    else:\n        out.append('!')\n"
     "    return ''.join(out)", "f('abcd') + f('azza')", "AC!A"),
    ("def f(n):\n    return 1 if n < 2 else f(n - 1) * n", "f(10)", 3628800),
    ("def f(d):\n    d['k'] = d.get('k', 0) + 1\n    return {v: k for k, v in d.items() if v}",
     "f({'a': 2})", {2: "a", 1: "k"}),
    ("def f(a):\n    x, *y = a\n    y[0], x = x, y[0]\n    del y[1]\n    return [x, y, a[::-1]]",
     "f([1, 2, 3])", [2, [1], [3, 2, 1]]),
    ("def f(a):\n    n = 0\n    while True:\n        n += 1\n        if n > a: return n", "f(4)", 5),
    ("def f(a):\n    try:\n        return a[9]\n    except (IndexError, KeyError):\n"
     "        return 'none'", "f([])", "none"),
    ("def f(a):\n    return sorted(a, key=lambda x: (-len(x), x)), max(a, key=len)",
     "f(['b', 'aa', 'a'])", (["aa", "a", "b"], "aa")),
    ("def f(a):\n    return list(map(str.upper, filter(None, a))), ','.join(map(str, range(3)))",
     "f(['x', ''])", (["X"], "0,1,2")),
    ("def f(a):\n    return f'{a}-{a!s}', '%s and %d' % (a, 3), '{} {:>3}'.format(a, 7)",
     "f('q')", ("q-q", "q and 3", "q   7")),
    ("def f(a):\n    return [x + y for x in a for y in a if x != y], {x % 2 for x in a}, "
     "sum(x for x in a)", "f([1, 2])", ([3, 3], {0, 1}, 3)),
    ("def f(a):\n    a += [1]\n    b = a\n    b.extend('xy')\n    return a, a is b, 1 < len(a) <= 4",
     "f([0])", ([0, 1, "x", "y"], True, True)),
    ("def f(s):\n    return s.replace('a', 'bb'), s.split(), s.zfill(6), s.partition('n')",
     "f('an a')", ("bbn bb", ["an", "a"], "00an a", ("a", "n", " a"))),
    ("def g(x):\n    return x + K\nK = 10\ndef f(x):\n    return g(x) * 2", "f(1)", 22),
    ("def f(x):\n    if (n := len(x)) > 1:\n        return n, isinstance(x, list), int('7') // 2\n"
     "    return None", "f([1, 2])", (2, True, 3)),
    ("def f(x):\n    return dict(zip(x, reversed(x))), any(x), all(x), round(2.567, 1), 7 % 3, 2**8",
     "f([0, 1])", ({0: 1, 1: 0}, True, False, 2.6, 1, 256)),
]  # fmt: skip


@pytest.mark.parametrize(("code", "call", "value"), PROGRAMS)
def test_a_pure_function_returns_what_python_returns(code, call, value):
    assert _value(code, call) == value


ESCAPES = [
    ("", "__import__('os').system('true')"),
    ("", "open('/etc/passwd')"),
    ("", "eval('1')"),
    ("", "exec('1')"),
    ("", "getattr('', 'upper')"),
    ("", "().__class__.__bases__[0].__subclasses__()"),
    ("", "''.__class__"),
    ("", "str.__subclasses__()"),
    ("", "'{0.__class__}'.format(1)"),
    ("", "'{0[0]}'.format([1])"),
    ("", "f'{1:{2}}'"),
    ("", "(lambda: 0).__globals__"),
    ("", "f.__code__"),
    ("", "len.__self__"),
    ("", "type(1)"),
    ("", "globals()"),
    ("import os\ndef f():\n    return os.getcwd()", "f()"),
    ("def f():\n    import os\n    return os.getcwd()", "f()"),
    ("class A:\n    pass", "A()"),
    ("def f():\n    with open('x') as h:\n        return h", "f()"),
    ("@print\ndef f():\n    return 1", "f()"),
    ("def f():\n    yield 1", "list(f())"),
    ("def f():\n    global x\n    x = 1\n    return x", "f()"),
    ("async def f():\n    return 1", "f()"),
    ("def f():\n    try:\n        return 1\n    except BaseException:\n        return 2\n", "g()"),
    ("", "print.__call__"),
    ("", "[].sort.__self__"),
    ("def f(**k):\n    return k", "f(a=1)"),
    ("x = 1; x.y = 2", "x"),
]


@pytest.mark.parametrize(("code", "call"), ESCAPES)
def test_what_is_no_pure_function_is_not_run(code, call):
    with pytest.raises(CannotTell):
        _value(code, call)


BOMBS = [
    ("def f():\n    while True: pass", "f()"),
    ("def f():\n    return f()", "f()"),
    ("def f():\n    try:\n        return f()\n    except Exception:\n        return f()", "f()"),
    ("def f():\n    while True:\n        try:\n            f()\n        except Exception:\n"
     "            continue", "f()"),
    ("", "9**9**9"),
    ("", "2**(10**9)"),
    ("", "pow(3, 10**8)"),
    ("", "10**200 * 10**200"),
    ("", "1 << 10**9"),
    ("", "'a' * 10**9"),
    ("", "10**9 * [0]"),
    ("", "[0] * 3000 * 3000"),
    ("", "range(10**9)"),
    ("", "list(range(10**6))"),
    ("", "sum(range(10**9))"),
    ("", "'a'.ljust(10**9)"),
    ("", "'a'.zfill(10**9)"),
    ("", "'\\t'.expandtabs(10**9)"),
    ("", "str.center('a', 10**9)"),
    ("", "'%1000000000d' % 1"),
    ("", "'%*d' % (10**9, 1)"),
    ("", "'{:1000000000}'.format(1)"),
    ("", "format(1, '1000000000')"),
    ("", "('a' * 3000).replace('a', 'b' * 3000)"),
    ("", "('a' * 3000).join(['b'] * 3000)"),
    ("", "('a' * 3000).translate(str.maketrans({'a': 'b' * 3000}))"),
    ("def f():\n    x = []\n    for i in range(100): x = [x, x]\n    return str(x)", "f()"),
    ("def f():\n    x = ()\n    for i in range(100): x = (x, x)\n    return {x: 1}", "f()"),
    ("def f():\n    x = ()\n    for i in range(100): x = (x, x)\n    d = {}\n    d[x] = 1\n    return 1",
     "f()"),
    ("def f():\n    x = ()\n    for i in range(100): x = (x, x)\n    return {x}", "f()"),
    ("def f():\n    x = ()\n    for i in range(100): x = (x, x)\n    return set([x])", "f()"),
    ("def f():\n    x = ()\n    for i in range(100): x = (x, x)\n    return [x].index(x)", "f()"),
    ("def f():\n    x, y = [], []\n    for i in range(100): x, y = [x, x], [y, y]\n    return x == y",
     "f()"),
    ("def f():\n    x, y = [], []\n    for i in range(100): x, y = [x, x], [y, y]\n"
     "    return sorted([x, y])", "f()"),
    ("def f():\n    x = []\n    for i in range(100): x = [x, x]\n    return f'{x}'", "f()"),
    ("def f():\n    x = []\n    for i in range(100): x = [x, x]\n    return '%s' % (x,)", "f()"),
    ("def f():\n    x = []\n    for i in range(100): x = [x, x]\n    return '{}'.format(x)", "f()"),
    ("def f():\n    x = []\n    x.append(x)\n    return x", "f()"),
    ("def f():\n    x = []\n    for i in range(100): x = [x, x]\n    return x", "f()"),
    ("def f():\n    x = [1]\n    for y in x: x.append(y)\n    return x", "f()"),
    ("def f():\n    x = [1]\n    while True: x.extend(x)", "f()"),
    ("def f():\n    x = [1]\n    while True: x += x", "f()"),
    ("def f():\n    x = 'a'\n    while True: x += x", "f()"),
    ("def f():\n    x = 3\n    while True: x *= x", "f()"),
    ("def f():\n    x = {}\n    while True: x[len(x)] = [0] * 4000", "f()"),
    ("", "[[[0] * 900 for a in range(900)] for b in range(900)]"),
    ("", "(" * 3000 + ")" * 3000),
    ("", "-" * 3900 + "1"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "call"), BOMBS)
def test_what_would_take_too_much_is_given_up(code, call):
    with pytest.raises(CannotTell):
        value_of(parsed(call).body[0].value, parsed(code))


def test_code_that_fails_gives_no_value():
    with pytest.raises(CannotTell, match="fails"):
        _value("def f(x):\n    return x[9]", "f([])")


def test_the_values_of_a_run_are_not_shared_with_the_next():
    code = parsed("X = []\ndef f():\n    X.append(1)\n    return len(X)")
    call = ast.parse("f()").body[0].value

    assert [value_of(call, code), value_of(call, code)] == [1, 1]
