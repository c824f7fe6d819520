"""Places, peoples, languages and products that are often written without a capital."""

from __future__ import annotations

_NAMES = """
afghanistan albania algeria argentina armenia australia austria azerbaijan bangladesh belgium
bolivia brazil bulgaria cambodia cameroon canada chile china colombia croatia cuba cyprus denmark
ecuador egypt england estonia ethiopia finland france germany ghana greece guatemala
haiti honduras hungary iceland india indonesia iran iraq ireland israel italy jamaica japan jordan
kazakhstan kenya kuwait latvia lebanon libya lithuania luxembourg malaysia malta mexico mongolia
morocco nepal netherlands nigeria norway pakistan panama paraguay peru philippines
poland portugal qatar romania russia rwanda scotland senegal serbia singapore slovakia slovenia
somalia spain sudan sweden switzerland syria taiwan tanzania thailand tunisia turkey
uganda ukraine uruguay uzbekistan venezuela vietnam wales yemen zambia zimbabwe europe asia africa
alabama alaska arizona arkansas california colorado connecticut delaware florida
hawaii idaho illinois indiana iowa kansas kentucky louisiana maine maryland massachusetts michigan
minnesota mississippi missouri montana nebraska nevada ohio oklahoma oregon pennsylvania tennessee
texas utah vermont virginia wisconsin wyoming ontario quebec alberta
amsterdam athens atlanta auckland austin baltimore bangkok barcelona beijing berlin birmingham
bogota boston brisbane brussels bucharest budapest cairo calgary charlotte chicago cincinnati
cleveland columbus copenhagen dallas delhi denver detroit dubai dublin edinburgh florence frankfurt
geneva glasgow hamburg hanoi havana helsinki honolulu houston istanbul jakarta jerusalem
karachi kyiv kyoto lagos lahore lima lisbon liverpool london luxor lyon madrid
manchester manila marseille melbourne memphis miami milan milwaukee minneapolis montreal moscow
mumbai munich nairobi naples nashville nice orlando osaka oslo ottawa paris perth philadelphia
phoenix pittsburgh portland prague rome rotterdam sacramento santiago seattle seoul
shanghai singapore stockholm sydney tampa tehran tokyo toronto tucson tulsa
valencia vancouver venice vienna warsaw zurich beirut bali
american british english french german spanish italian portuguese russian chinese japanese korean
arabic hindi dutch swedish norwegian danish finnish polish turkish greek hebrew thai vietnamese
indonesian latin ukrainian czech hungarian mandarin cantonese mexican indian canadian australian
iphone android windows macos linux ubuntu debian fedora ipad chromebook macbook
python javascript typescript java kotlin golang rust ruby php perl scala haskell
postgres mysql sqlite mongodb redis cassandra oracle docker kubernetes terraform ansible
react angular vue django flask fastapi pandas numpy pytorch tensorflow
aws azure gcp google amazon apple microsoft facebook netflix spotify uber lyft tesla toyota
honda ford bmw samsung sony nintendo xbox playstation whatsapp telegram instagram twitter youtube
visa mastercard amex paypal stripe venmo zelle revolut monzo starbucks walmart
mercury venus mars jupiter saturn uranus neptune pluto
bitcoin ethereum dogecoin litecoin
chase citibank barclays hsbc santander
"""
_PAIRS = (
    "new york", "los angeles", "san francisco", "san diego", "las vegas", "new orleans",
    "hong kong", "south korea", "north korea", "new zealand", "south africa", "saudi arabia",
    "united states", "united kingdom", "costa rica", "sri lanka", "puerto rico", "new jersey",
    "new mexico", "north carolina", "south carolina", "north dakota", "south dakota",
    "rhode island", "west virginia", "new hampshire", "mexico city", "kuala lumpur", "tel aviv",
    "cape town", "buenos aires", "abu dhabi", "new delhi", "san jose", "san antonio", "st louis",
    "salt lake", "kansas city", "apple pay", "google pay", "american express",
)  # fmt: skip
ALIASES = {
    "usa": "united states", "america": "united states", "uk": "united kingdom",
    "britain": "united kingdom", "nyc": "new york", "sf": "san francisco",
    "vegas": "las vegas", "postgresql": "postgres", "k8s": "kubernetes", "js": "javascript",
    "holland": "netherlands", "amex": "american express", "european": "europe",
    "mexican": "mexico", "indian": "india", "canadian": "canada", "chinese": "china",
    "japanese": "japan", "italian": "italy", "french": "france", "german": "germany",
    "spanish": "spain", "british": "united kingdom", "american": "united states",
    "australian": "australia", "korean": "korea", "russian": "russia", "greek": "greece",
    "turkish": "turkey", "thai": "thailand", "polish": "poland", "swedish": "sweden",
}  # fmt: skip
"""Other words for a name."""
NAMES = (frozenset(_NAMES.split()) - {"nice", "turkey", "java", "amazon"}) | frozenset(_PAIRS)
"""Names in lower case. Words that mean something else as often are left out."""
