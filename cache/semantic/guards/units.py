"""Units by name: dimension and factor to its base unit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit: base value = (value + offset) * factor.

    `is_telling` units ask for an answer of their own when named without a number.
    """

    name: str
    dimension: str
    factor: float
    offset: float = 0.0
    is_telling: bool = True


_LINES = """
length 0.001 mm millimeter millimetre
length 0.01 cm centimeter centimetre
length 1 meter metre
length 1000 km kilometer kilometre kms
length 0.0254 inch inches
length 0.3048 ft foot feet
length 0.9144 yd yard
length 1609.344 mile mi
length 1852 nmi
mass 0.000001 mg milligram
mass 0.001 gram gramme
mass 1 kg kilogram kilo kgs
mass 1000 tonne
mass 907.18474 ton
mass 0.028349523125 oz ounce
mass 6.35029318 stone
volume 0.001 ml milliliter millilitre
volume 0.01 cl centiliter
volume 1 liter litre
volume 3.785411784 gallon
volume 0.946352946 quart
volume 0.473176473 pint
volume 0.2365882365 cup
volume 0.01478676478 tablespoon tbsp
volume 0.00492892159 teaspoon tsp
area 10000 hectare
area 4046.8564224 acre
speed 0.27777777778 kmh kph
speed 0.44704 mph
speed 0.51444444444 knot
energy 1 joule
energy 4.184 calorie
energy 4184 kcal
energy 3600000 kwh
power 1 watt
power 1000 kw kilowatt
power 745.699872 horsepower
pressure 100000 bar
pressure 6894.757293 psi
data 0.125 bits
data 1 byte
data 1000 kb kilobyte
data 1000000 mb megabyte
data 1000000000 gb gigabyte
data 1000000000000 tb terabyte
data 1024 kib
data 1048576 mib
data 1073741824 gib
share 0.01 % percent
money:usd 1 dollar usd buck
money:usd 0.01 cent
money:eur 1 euro eur €
money:gbp 0.01 pence
money:jpy 1 yen jpy
money:inr 1 rupee inr
money:cad 1 cad
money:aud 1 aud
money:chf 1 chf franc
money:cny 1 yuan cny rmb
money:krw 1 won krw
money:mxn 1 peso mxn
money:btc 1 bitcoin btc
money:eth 1 ethereum eth
angle 1 radian
angle 0.01745329252 degree ° deg
electric 1 volt
current 1 amp ampere
frequency 1 hertz hz
frequency 1000000 mhz
frequency 1000000000 ghz
"""
_TIMES = """
time 0.001 ms millisecond
time 1 sec second
time 60 min minute mins
time 3600 hour hr hrs
time 86400 day
time 604800 week
time 2629800 month
time 31557600 year yr yrs
"""
_TEMPERATURES = {
    "celsius": (0.0, 1.0), "centigrade": (0.0, 1.0), "fahrenheit": (-32.0, 5 / 9),
    "kelvin": (-273.15, 1.0),
}  # fmt: skip
_AMBIGUOUS = frozenset(("won", "bar", "second", "stone", "cup", "foot", "mi", "min", "amp"))


def _table() -> dict[str, Unit]:
    table: dict[str, Unit] = {}
    for line in (_LINES + _TIMES).split("\n"):
        dimension, *rest = line.split() or [""]
        for name in rest[1:]:
            telling = dimension != "time" and name not in _AMBIGUOUS
            unit = Unit(rest[1], dimension, float(rest[0]), is_telling=telling)
            table[name] = unit
            if len(name) > 2:
                table.setdefault(name + "s", unit)
    # Money or mass: one word, so one dimension of its own.
    pound = Unit("pound", "pound", 1.0)
    table |= dict.fromkeys(("pound", "pounds", "lb", "lbs", "gbp", "quid", "£"), pound)
    for name, (offset, factor) in _TEMPERATURES.items():
        table[name] = Unit(name, "temperature", factor, offset)
    # A letter is a unit only where it is glued to its figure.
    for letter, name in (("g", "gram"), ("l", "liter"), ("s", "second"), ("h", "hour")):
        table[letter] = table[name]
    table["m"] = table["meter"]
    table["w"] = table["watt"]
    table["v"] = table["volt"]
    table["c"] = table["celsius"]
    table["f"] = table["fahrenheit"]
    return table


UNITS = _table()
"""Every unit, by each of its names in lower case."""
