"""Every word the bundled model knows. Word-level: one token per word, so lengths are countable by eye.

Texts are words separated by single spaces. Does not protect against words outside the lists: they become the
unknown token, and `encode` refuses them.
"""

from __future__ import annotations


def words(text: str) -> list[str]:
    """The space-separated words of a text."""
    return text.split()


UNKNOWN, BOS, EOS, MASK = "<|unknown|>", "<|startoftext|>", "<|endoftext|>", "<|mdm_mask|>"
SPECIAL = [UNKNOWN, BOS, EOS, MASK]

NUMBERS = [str(n) for n in range(31)]
SIGNS = [".", ",", ";", "?", ":", "=", "+", "-", "[", "]", "(", ")"]
GLUE = words("the a saw near with it so how many has what now lives in works as eats")

FIRST = words(
    "ana ben cleo dan eva finn gia hugo ida jon kira leo mia ned olga paul "
    "quin rosa sam tara uri vera walt xena yara zoe abel beth carl dora egon faye"
)
LAST = words(
    "adler bakker costa duarte egger fontana garza holt ivanov jansen keller lopez moreau nagy okafor petrov "
    "quist reyes sato tanaka ueda varga weber xu yilmaz zhou amsel bruno cohen dahl engel fabre"
)

# Attribute -> the words between a person's name and the value, and the two word lists the value is drawn from.
ATTRIBUTES: dict[str, tuple[str, list[str], list[str]]] = {
    "home": (
        "lives in",
        words("north south east west old new upper lower"),
        words("oslo paris cairo lima quito delhi tokyo seoul rome bern riga kyiv dakar accra perth turin"),
    ),
    "job": (
        "works as",
        words("junior senior chief deputy retired trainee former acting"),
        words("cook pilot nurse judge miner clerk tutor poet actor diver guide baker tailor farmer welder editor"),
    ),
    "pet": (
        "has a",
        words("brown white black grey golden spotted striped tiny"),
        words(
            "parrot rabbit pony ferret turtle gecko hamster spaniel "
            "goose lizard kitten poodle canary mouse toad snail"
        ),
    ),
    "food": (
        "eats",
        words("hot cold spicy sweet salted smoked fresh dried"),
        words("soup rice plums beans bread trout pasta cheese olives beets figs lamb noodles mango squash peas"),
    ),
}

SUBJECTS = {
    "he": words("king uncle monk boy waiter prince father duke"),
    "she": words("queen aunt nun girl waitress princess mother duchess"),
    "they": words("twins guards pupils sailors dancers neighbours judges thieves"),
}
OBJECTS = words(
    "lamp candle torch stove door gate window chest vase cup plate bowl rope ribbon cord string "
    "shirt coat sock towel song poem hymn ballad drum bell gong cymbal book letter map diary"
)
VERBS = words("lit opened filled tied washed sang struck read")
ADJECTIVES = words(
    "fragile delicate heavy massive sacred holy sticky greasy "
    "ancient dusty hidden secret noisy creaky costly precious"
)
MANNERS = words("gently slowly solemnly quickly curiously quietly nervously proudly")

ITEMS = words("apples coins stamps cards shells pens beads marbles buttons tickets stones badges")
GAINS = words("finds buys gets wins")
LOSSES = words("loses sells gives drops")

CODE = words("code: x ; print( ) out: sorted( max( min( len( [0] [-1] [1:] [:-1] [::-1]")


def _unique(*lists: list[str]) -> list[str]:
    return list(dict.fromkeys(word for each in lists for word in each))


VOCABULARY = _unique(
    SPECIAL,
    SIGNS,
    NUMBERS,
    GLUE,
    FIRST,
    LAST,
    *(part.split() + left + right for part, left, right in ATTRIBUTES.values()),
    [*SUBJECTS, *(word for each in SUBJECTS.values() for word in each)],
    OBJECTS,
    VERBS,
    ADJECTIVES,
    MANNERS,
    ITEMS,
    GAINS,
    LOSSES,
    CODE,
)
IDS = {word: index for index, word in enumerate(VOCABULARY)}
UNKNOWN_ID, BOS_ID, EOS_ID, MASK_ID = (IDS[word] for word in SPECIAL)


def encode(text: str) -> list[int]:
    """Token ids of space-separated known words; KeyError for any other word."""
    return [IDS[word] for word in words(text)]
