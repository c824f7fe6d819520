"""Words that ask for the same, by stem."""

from __future__ import annotations

from cache.semantic.guards.words import stem

_GROUPS = """
buy purchase get acquire obtain order
change modify alter edit adjust switch update amend swap
reset restore recover
fix repair resolve solve correct troubleshoot
begin start launch commence initiate
end finish stop terminate
cancel abort
delete remove erase drop
show display list view see print
make create build generate produce
find locate discover search look
help assist aid support
allow permit let enable
need require want
cost price charge fee expense rate
fast quick rapid speedy
big large huge
small little tiny
phone mobile cell smartphone telephone cellphone
car vehicle automobile auto
film movie
photo picture image pic
job work position
kid child
doctor physician
store shop
house home
mail email e-mail
money cash fund
transfer payment
account profile
card
error issue problem fault bug trouble
method way approach technique
best top greatest
explain describe clarify
difference distinction
reason cause
happen occur
use utilize employ
shut close
speak talk
big major
begin start
answer reply respond response
test check verify examine confirm validate
location place spot
trip journey travel
holiday vacation
meeting appointment
song track music
luggage baggage suitcase bag
flight plane
topup top-up recharge reload
bill invoice
salary pay wage paycheck
company business firm
weather forecast
recipe instruction
meaning definition define mean
calculate compute figure determine work
translate say
book reserve schedule
convert turn change transform
learn study
receive get obtain
send transfer deliver ship
arrive come reach
decline reject refuse deny
lose lost misplace missing
steal stolen
broken damaged
hour time
quickly fast soon
explain tell describe
increase raise boost
reduce lower decrease cut
procedure process step
possible able
file document
folder directory
function method routine
string text
install setup
run execute launch
dish meal food
sick ill
improve enhance better
important essential crucial
advise suggest recommend
forgot forget
limit limitation restriction cap policy
point purpose importance aim
way route
resident citizen
purchase order
merchant seller vendor retailer
worker employee staff
laptop computer pc notebook
setting configuration option preference default
app application program
website site page
picture image photo
region area zone
guide tutorial manual walkthrough
feature function capability
user member
child kid
flat apartment
lift elevator
trip tour
passcode password
"""
SAME: dict[str, str] = {}
"""The first word of its group, by stem. A word of two groups belongs to the first."""
for _line in _GROUPS.split("\n"):
    for _word in _line.split():
        SAME.setdefault(stem(_word), stem(_line.split()[0]))
