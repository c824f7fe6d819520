"""Words that turn a question round, by axis."""

from __future__ import annotations

from collections import defaultdict

from cache.semantic.guards.words import stem

_AXES = """
increase raise higher boost grow upgrade | decrease reduce lower cut shrink downgrade
maximum max most highest largest biggest greatest | minimum min least lowest smallest
more greater bigger larger | less fewer smaller
cheapest cheaper cheap inexpensive | expensive priciest costly pricey dearest
fastest faster fast quick quicker quickest quickly | slowest slower slow slowly
best better good | worst worse bad
before prior earlier | after afterwards following later
oldest older old | newest newer new latest
first | last
above over exceeding | below under beneath
inside indoor indoors interior internal | outside outdoor outdoors exterior external
enable activate | disable deactivate
open reopen opening | close shut closing closed
start begin starting beginning launch | stop end finish stopping ending terminate
install | uninstall
add include adding | remove delete exclude subtract removing deleting
buy purchase buying | sell selling sale
lend | borrow
send sent sending | receive received receiving
deposit | withdraw withdrawal withdrawing
upload | download
import | export
push | pull
encrypt encryption encode | decrypt decryption decode
compress zip | decompress unzip extract
lock | unlock
subscribe | unsubscribe cancel
follow | unfollow
mute | unmute
freeze block | unfreeze unblock
allow permit allowed accept | forbid prohibit prohibited forbidden ban deny denied disallow
join joining | leave quit leaving
arrive arrival arriving arrivals | depart departure departing departures
win | lose
gain | lose loss
left | right
north northern | south southern
east eastern | west western
hot hotter warm warmer hottest | cold colder cool cooler coldest
summer | winter
safe | dangerous unsafe
legal lawful | illegal unlawful
public | private
single | multiple
ascending | descending
forward forwards | backward backwards
positive | negative
profit | loss
asset assets | liability liabilities
income revenue | expense expenses spending
credit | debit
employer | employee
client | server
parent | child
male man men boy | female woman women girl
husband | wife
father dad | mother mom
brother | sister
son | daughter
teacher | student
lighten lighter brighten | darken darker dim
tighten | loosen
wide wider broad | narrow narrower
deep deeper | shallow
heavy heavier | light lighter
thick thicker | thin thinner
easy easier easiest simple | hard harder hardest difficult
early earliest | late latest
pros advantage advantages benefits benefit | cons disadvantage disadvantages drawbacks drawback
strong stronger strongest | weak weaker weakest
long longer longest | short shorter shortest
tall taller tallest | short shorter shortest
love like | hate dislike
hire hiring | fire firing
rent | own
attach connect | detach disconnect
expand | collapse
show display reveal | hide conceal
save | discard
merge | split
lossless | lossy
optional | mandatory required compulsory
temporary temporarily | permanent permanently
manual manually | automatic automatically
synchronous | asynchronous
local locally | remote remotely
client-side | server-side
horizontal horizontally | vertical vertically
odd | even
multiply | divide
addition | subtraction
plus | minus
input inputs | output outputs
read | write
inbound incoming | outbound outgoing
import imports | export exports
domestic | international abroad overseas
full | empty
turn-on on | off
up | down
approve approved approval | reject rejected rejection decline declined
succeed success successful | fail failure unsuccessful
present | absent
agree | disagree
vegetarian vegan | meat
healthy | unhealthy
raw | cooked
wet | dry
alive living | dead
birth born | death died die
sunrise | sunset
morning | evening night
day | night
monthly | yearly annual annually
daily | weekly
bullish bull | bearish bear
until till | since
within | beyond
including | excluding
superset | subset
encoder | decoder
sender | recipient receiver
buyer | seller
landlord | tenant
last | next
"""


def _table() -> dict[str, tuple[tuple[int, int], ...]]:
    table: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for axis, line in enumerate(line for line in _AXES.splitlines() if "|" in line):
        for sense, side in zip((1, -1), line.split("|"), strict=True):
            for word in side.split():
                table[word].add((axis, sense))
                table[stem(word)].add((axis, sense))
    return {word: tuple(senses) for word, senses in table.items()}


OPPOSITES = _table()
"""The axes on which a word stands, and its side of each."""
