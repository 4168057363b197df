"""Everyday words for the grammar's values: what the rules look up and the training examples say.

Kept to what a reader would write down in an afternoon. The language model is there for the rest.
"""

from __future__ import annotations

from fastgen_course.datasets.captions import SLOTS, SYNONYMS

# slot: value: words beyond the grammar's own. A plural in -s is found without being listed.
EXTRA: dict[str, dict[str, tuple[str, ...]]] = {
    "size": {
        "small": ("miniature", "mini", "petite", "compact", "teeny", "wee", "smallish", "minute"),
        "large": ("giant", "gigantic", "enormous", "massive", "oversized", "extra large", "grand"),
    },
    "colour": {
        "red": ("crimson", "ruby", "cherry", "cherry red", "brick red", "dark red", "wine red"),
        "orange": ("amber", "apricot", "burnt orange", "dark orange", "bright orange", "pumpkin"),
        "yellow": ("golden", "gold", "mustard", "lemon yellow", "bright yellow", "sunny yellow"),
        "green": ("lime", "olive", "forest green", "dark green", "grass green", "jade", "moss"),
        "blue": ("cobalt", "azure", "navy blue", "dark blue", "royal blue", "indigo", "sapphire"),
        "purple": ("lilac", "lavender", "plum", "mauve", "dark purple", "deep purple", "amethyst"),
        "pink": ("magenta", "fuchsia", "hot pink", "salmon", "coral pink", "bright pink"),
        "brown": ("chestnut", "coffee", "caramel", "tan", "hazel", "dark brown", "cocoa"),
    },
    "garment": {
        "t-shirt": ("tee shirt", "tshirt", "t shirt", "short-sleeved top", "undershirt"),
        "trousers": ("jeans", "slacks", "leggings", "chinos", "joggers", "pair of trousers"),
        "pullover": ("hoodie", "sweatshirt", "knitted jumper", "woolly jumper", "knitwear"),
        "dress": ("frock", "sundress", "evening dress", "summer dress", "robe"),
        "coat": ("overcoat", "parka", "raincoat", "winter coat", "blazer", "anorak"),
        "sandal": ("flip flop", "summer shoe", "open shoe", "slipper", "beach shoe"),
        "shirt": ("dress shirt", "button-up", "button-up shirt", "collared shirt", "tunic"),
        "sneaker": ("running shoe", "gym shoe", "sports shoe", "tennis shoe", "shoe", "plimsoll"),
        "bag": ("purse", "tote", "backpack", "tote bag", "shoulder bag", "satchel", "suitcase"),
        "boot": ("wellington", "rain boot", "hiking boot", "leather boot", "winter boot"),
    },
    "background": {
        "white": ("snow white", "pure white", "plain white", "chalk white", "ivory"),
        "grey": ("silver", "ash grey", "stone grey", "light grey", "concrete grey"),
        "black": ("pitch black", "jet black", "night black", "coal black", "midnight black"),
        "pale blue": ("sky blue", "baby blue", "ice blue", "soft blue", "powder blue"),
        "pale green": ("mint", "mint green", "soft green", "pastel green", "pistachio"),
        "pale pink": ("baby pink", "soft pink", "pastel pink", "blush", "powder pink"),
    },
    "style": {
        "photo": ("photographic", "realistic", "photorealistic", "snapshot", "real photo"),
        "sketch": ("sketched", "sketchy", "pencil", "hand-drawn", "pencil drawing", "doodle"),
        "flat": ("flat colours", "vector", "clip-art", "comic", "flat design", "poster"),
        "pixel art": ("pixels", "8-bit", "retro game", "pixel", "blocky", "video game"),
    },
}

# Things of one colour: "as red as a tomato", "tomato red", "the colour of a tomato".
THINGS: dict[str, tuple[str, ...]] = {
    "red": ("tomato", "strawberry", "ketchup", "stop sign", "poppy", "ladybird"),
    "orange": ("carrot", "mandarin", "fox", "clementine", "traffic cone", "goldfish"),
    "yellow": ("banana", "sunflower", "canary", "duckling", "buttercup", "daffodil"),
    "green": ("leaf", "cucumber", "frog", "avocado", "pine tree", "spinach"),
    "blue": ("ocean", "cornflower", "sea", "jay", "deep lake", "blueberry"),
    "purple": ("grape", "aubergine", "violet flower", "beetroot", "fig", "thistle"),
    "pink": ("flamingo", "bubblegum", "peony", "piglet", "raspberry yoghurt", "cherry blossom"),
    "brown": ("bear", "acorn", "hazelnut", "tree trunk", "cinnamon stick", "walnut"),
}

# Asking for the other size, relative to what is there.
BIGGER = ("bigger", "larger", "enlarge", "enlarged", "scale up", "scale it up", "grow", "expand")
SMALLER = ("smaller", "shrink", "shrunk", "reduce", "scale down", "scale it down", "tinier")

REMOVE = ("remove", "delete", "erase", "take away", "get rid of", "clear", "empty", "no garment")
REMOVE += ("away", "nothing left", "without any garment", "no clothes", "vanish", "disappear")
PLAIN = ("nothing behind", "no background", "plain background", "blank background", "no backdrop")

# Where the backdrop is meant: "pink" beside one of these is the pale pink of a background.
BACKDROPS = ("background", "backdrop", "wall", "behind", "backcloth", "surroundings", "scene")
BEFORE_BACKDROP = ("on", "against", "before", "over", "in front of")

# What a request may say besides values, for the rules to know every word of it.
_FUNCTION = """
a an the this that these those it its it's one ones them they i i'd i'm me my we us our you your
please and or but with without in on at of to into for from by as like so too also now just only
then than is are be was were been should would could can will may let let's do does don't not no
nor never any some more most less very rather quite really make makes made making turn turned
change changed changes draw drawn drawing draws show shown give gives given gimme get have has had
put paint painted colour coloured color colored recolour recolor dye dyed want wants wanted need
like'd love prefer try use used using swap replace replaced switch exchange instead same thing
item piece clothing clothes garment style styled look looks looking version picture image
background backdrop wall behind against front around surroundings scene pair kind sort shade tone
hue bit keep keeping rest else everything set place placed add added here there what about how if
see take which who where when up down out off over under all both something anything
"""
FUNCTION_WORDS = frozenset(_FUNCTION.split())

# Common things that the course cannot draw: asked for, they are refused by name.
_UNDRAWABLE = """
car cat dog house tree horse bicycle aeroplane boat ship train bus truck bridge castle mountain
river beach sunset forest flower garden bird fish elephant lion tiger dragon unicorn robot
spaceship rocket planet moon man woman child baby face person king queen table chair sofa lamp
laptop phone guitar piano violin drum pizza burger cake bread apple pie sandwich cup bottle knife
sword gun clock book newspaper map flag city street skyscraper tower church football helicopter
motorbike tractor snowman volcano island desert waterfall rainbow butterfly spider snake monkey
rabbit hat cap scarf glove sock tie belt skirt shorts swimsuit bikini necklace ring watch umbrella
glasses earring crown mask
"""
UNDRAWABLE = tuple(_UNDRAWABLE.split())


def ways(slot: str, value: str) -> tuple[str, ...]:
    """Every listed way to say `value`: the value itself, the grammar's synonyms, and EXTRA."""
    return (value, *SYNONYMS.get(value, ()), *EXTRA.get(slot, {}).get(value, ()))


def phrases() -> dict[tuple[str, ...], tuple[str, str]]:
    """Each listed way, as its words, to the (slot, value) that it says, longest first."""
    found = {}
    for slot, values in SLOTS.items():
        for value in values:
            for way in ways(slot, value):
                found[tuple(way.replace("-", " ").split())] = (slot, value)
    for value, things in THINGS.items():
        for thing in things:
            found[tuple(thing.split())] = ("colour", value)
    return dict(sorted(found.items(), key=lambda item: -len(item[0])))
