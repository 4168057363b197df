"""Everyday words for the grammar's values: what the rules look up and the training examples say.

Some twenty ways to say each value, written down without a look at the test sets. The language
model is there for the rest: no list is ever complete.
"""

from __future__ import annotations

from fastgen_course.datasets.captions import SLOTS, SYNONYMS

# slot: value: words beyond the grammar's own. A plural in -s is found without being listed.
_EXTRA: dict[str, dict[str, str]] = {
    "size": {
        "small": """
            miniature, mini, petite, compact, teeny, wee, smallish, minute, teensy, dinky,
            pocket-sized, undersized, diminutive, itsy-bitsy, toy-sized, titchy, small-sized,
            pint-sized, microscopic
        """,
        "large": """
            giant, gigantic, enormous, massive, oversized, extra large, grand, immense,
            colossal, vast, jumbo, xl, xxl, king-sized, mighty, hefty, big-sized, supersized,
            sizeable, humongous, monumental, full-size, largish, biggish
        """,
    },
    "colour": {
        "red": """
            crimson, ruby, cherry, cherry red, brick red, dark red, wine red, burgundy, maroon,
            vermilion, cardinal, carmine, garnet, claret, blood red, brick, oxblood, poppy red,
            wine, bordeaux, bright red, light red, fire engine red, deep red, rusty red, tomato
            red, lipstick red
        """,
        "orange": """
            amber, apricot, burnt orange, dark orange, bright orange, pumpkin, peach, coral,
            saffron, ginger, terracotta, papaya, mango, marigold, persimmon, light orange, neon
            orange, cantaloupe, deep orange, satsuma, turmeric, peachy
        """,
        "yellow": """
            golden, gold, mustard, lemon yellow, bright yellow, sunny yellow, honey, blonde,
            straw, corn, maize, buttery, butter, sunshine, citrine, ochre, flaxen, primrose,
            light yellow, pale yellow, neon yellow, sulphur, lemony, custard, dark yellow, honey
            yellow, sunny
        """,
        "green": """
            lime, olive, forest green, dark green, grass green, jade, moss, pine green, bottle
            green, racing green, sea green, pea green, apple green, fern, sage, basil, viridian,
            hunter green, bright green, lime green, olive green, mossy, neon green, leafy green,
            grassy, deep green, shamrock, malachite
        """,
        "blue": """
            cobalt, azure, navy blue, dark blue, royal blue, indigo, sapphire, ultramarine,
            cyan, aqua, turquoise, teal, cerulean, denim blue, marine, marine blue, electric
            blue, bright blue, prussian blue, ocean blue, sea blue, lapis, steel blue, petrol,
            aquamarine, midnight blue, deep blue, cyan blue, oxford blue
        """,
        "purple": """
            lilac, lavender, plum, mauve, dark purple, deep purple, amethyst, eggplant, heather,
            mulberry, orchid, royal purple, periwinkle, bright purple, light purple, wisteria,
            iris, byzantium, purply, pale purple, pale violet, imperial purple
        """,
        "pink": """
            magenta, fuchsia, hot pink, salmon, coral pink, bright pink, rosy, bubblegum pink,
            flamingo pink, cerise, dusty pink, raspberry, candy pink, neon pink, dark pink,
            watermelon, rose pink, carnation, shocking pink, deep pink, salmon pink, fuchsia
            pink
        """,
        "brown": """
            chestnut, coffee, caramel, tan, hazel, dark brown, cocoa, mahogany, beige, camel,
            sepia, umber, sienna, mocha, toffee, cinnamon, bronze, khaki, nut brown, light
            brown, taupe, fawn, tawny, auburn, russet, rust, cognac, espresso, nutmeg, copper,
            chocolatey, leather brown, earthy brown, chocolate brown, coppery
        """,
    },
    "garment": {
        "t-shirt": """
            tee shirt, tshirt, t shirt, short-sleeved top, undershirt, vest top, tank top,
            singlet, camisole, crop top, sleeveless top, football shirt, graphic tee, short-
            sleeved shirt, crew-neck tee, sports top, cotton top, band tee
        """,
        "trousers": """
            jeans, slacks, leggings, chinos, joggers, pair of trousers, cargo pants, corduroys,
            cords, dungarees, sweatpants, tracksuit bottoms, denims, khakis, culottes, overalls,
            bell bottoms, yoga pants, skinny jeans, blue jeans, pantaloons, breeches, suit
            trousers, jogging bottoms, bottoms, tights, pair of jeans
        """,
        "pullover": """
            hoodie, hoody, sweatshirt, knitted jumper, woolly jumper, knitwear, cardigan,
            turtleneck, roll neck, polo neck, fleece, knit, cashmere sweater, wool sweater,
            hooded top, slipover, v-neck, woolly, christmas jumper, turtleneck sweater,
            crewneck, woollen jumper, hooded sweatshirt, knitted sweater
        """,
        "dress": """
            frock, sundress, evening dress, summer dress, robe, ball gown, wedding dress, maxi
            dress, mini dress, cocktail dress, pinafore, nightgown, nightdress, evening gown,
            slip dress, shift dress, party dress, long dress, prom dress, sleeveless dress,
            ballgown, gala dress
        """,
        "coat": """
            overcoat, parka, raincoat, winter coat, blazer, anorak, trench, trench coat,
            windbreaker, windcheater, mackintosh, duffel coat, duffle coat, cloak, peacoat,
            puffer, puffer jacket, down jacket, leather jacket, denim jacket, bomber jacket,
            bomber, topcoat, greatcoat, cagoule, rain jacket, fur coat, suit jacket, ski jacket,
            lab coat, jean jacket, rain coat
        """,
        "sandal": """
            flip flop, summer shoe, open shoe, slipper, beach shoe, slider, espadrille, clog,
            mule, open-toed shoe, high heel, stiletto, strappy shoe, pool slide, jelly shoe,
            birkenstock, thong sandal, gladiator sandal, beach sandal, flipflop, open-toe shoe,
            heeled sandal, beach slipper
        """,
        "shirt": """
            dress shirt, button-up, button-up shirt, collared shirt, tunic, polo, polo shirt,
            button-down, button-down shirt, oxford shirt, flannel, flannel shirt, office shirt,
            work shirt, hawaiian shirt, chemise, formal shirt, long-sleeved shirt, linen shirt,
            smock, lumberjack shirt, checked shirt, business shirt, silk shirt
        """,
        "sneaker": """
            running shoe, gym shoe, sports shoe, tennis shoe, shoe, plimsoll, jogging shoe,
            basketball shoe, skate shoe, canvas shoe, high-top, runner, athletic shoe, walking
            shoe, casual shoe, lace-up shoe, lace-up, sport shoe, skater shoe, training shoe,
            kicks, sneaker shoe, loafer
        """,
        "bag": """
            purse, tote, backpack, tote bag, shoulder bag, satchel, suitcase, rucksack, clutch,
            briefcase, duffel bag, carrier bag, messenger bag, pouch, holdall, shopping bag,
            bumbag, knapsack, schoolbag, travel bag, clutch bag, gym bag, wallet, leather bag,
            hand bag, school bag, evening bag, sports bag, luggage, canvas bag
        """,
        "boot": """
            wellington, rain boot, hiking boot, leather boot, winter boot, galoshes, galosh,
            wellies, welly, gumboot, snow boot, chelsea boot, cowboy boot, combat boot, biker
            boot, bootie, work boot, walking boot, riding boot, ski boot, moon boot, desert
            boot, army boot, rubber boot, knee-high boot, high boot, wellington boot, lace-up
            boot
        """,
    },
    "background": {
        "white": """
            snow white, pure white, plain white, chalk white, ivory, snow, milk, milky white,
            milky, cream, off-white, bright white, paper white, chalk, alabaster, eggshell,
            porcelain, pearl, pearl white, bone white, clean white, whitewashed, cream white,
            creamy white
        """,
        "grey": """
            silver, ash grey, stone grey, light grey, concrete grey, concrete, slate, slate
            grey, ash, stone, cement, steel grey, dove grey, smoke, smoky, smoky grey, foggy,
            misty, pewter, gunmetal, granite, mid grey, dark grey, medium grey, neutral grey,
            silvery, charcoal grey, cloudy, mouse grey, silver grey, pale grey, greyscale grey,
            cloud grey
        """,
        "black": """
            pitch black, jet black, night black, coal black, midnight black, ebony, onyx, coal,
            inky, ink black, raven, obsidian, pitch dark, darkness, soot, sooty, deep black,
            plain black, night, midnight, raven black, tar, dark black, pitch-dark, inky black
        """,
        "pale blue": """
            sky blue, baby blue, ice blue, soft blue, powder blue, sky, pastel blue, icy blue,
            faint blue, washed-out blue, duck egg blue, glacier blue, frosty blue, delicate
            blue, light sky blue, whitish blue, arctic blue, bluish white
        """,
        "pale green": """
            mint, mint green, soft green, pastel green, pistachio, minty, faint green, celadon,
            seafoam, honeydew, tea green, delicate green, washed-out green, sea foam, sea foam
            green, pistachio green, seafoam green, light mint, whitish green
        """,
        "pale pink": """
            baby pink, soft pink, pastel pink, blush, powder pink, faint pink, shell pink,
            ballet pink, blush pink, delicate pink, washed-out pink, candyfloss, cotton candy,
            whitish pink, powdery pink, light rose, pale rose
        """,
    },
    "style": {
        "photo": """
            photographic, photographer, photo shoot, realistic, photorealistic, snapshot, real
            photo, lifelike, true to life, real life, camera, camera shot, real, photography,
            photographed, polaroid, studio shot, photoreal, realism, product shot, genuine
            photo, studio photograph, true-life, photo-like, camera picture, photographically,
            realistically
        """,
        "sketch": """
            sketched, sketchy, pencil, hand-drawn, pencil drawing, doodle, crayon, charcoal
            drawing, ink drawing, outline, line art, line drawing, scribble, scribbled, pen and
            ink, drawn by hand, pencilled, sketchbook, ballpoint, biro, etching, freehand, rough
            sketch, charcoal sketch, doodled, hand drawing, pencil sketch, penned, line-art,
            outlined, felt-tip
        """,
        "flat": """
            flat colours, vector, clip-art, comic, flat design, poster, cartoonish, cartoony,
            comic book, illustration, illustrated, vector graphic, vector art, solid colours,
            sticker, emoji, anime, cel shaded, plain colours, graphic, paper cut- out, cut-out,
            pop art, screen print, flat colour, simple shapes, animation, animated, comic strip,
            flat-coloured, cartoon-like, flat colors, flat color
        """,
        "pixel art": """
            pixels, 8-bit, retro game, pixel, blocky, video game, pixelart, pixelly, pixely,
            16-bit, eight-bit, sixteen-bit, sprite, retro, arcade, game boy, gameboy, nintendo,
            minecraft, low-res, low resolution, computer game, atari, pixellated, bitmap, retro
            arcade, retro gaming, old computer game, pixel graphics, 8 bit game, mosaic, pixel
            style, videogame
        """,
    },
}
EXTRA: dict[str, dict[str, tuple[str, ...]]] = {
    slot: {
        value: tuple(" ".join(way.split()) for way in ways.split(","))
        for value, ways in values.items()
    }
    for slot, values in _EXTRA.items()
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
BIGGER += ("double", "twice", "upsize", "upscale", "blow up", "blow it up", "zoom in", "expanded")
BIGGER += ("size up", "increase", "inflate", "stretch", "magnify", "wider", "taller", "grown")
SMALLER = ("smaller", "shrink", "shrunk", "reduce", "scale down", "scale it down", "tinier")
SMALLER += (
    "half",
    "halve",
    "downsize",
    "downscale",
    "zoom out",
    "size down",
    "decrease",
    "littler",
)
SMALLER += ("shrunken", "reduced", "less big", "less large", "shorter", "miniaturise")

REMOVE = ("remove", "delete", "erase", "take away", "get rid of", "clear", "empty", "no garment")
REMOVE += ("away", "nothing left", "without any garment", "no clothes", "vanish", "disappear")
REMOVE += ("take it away", "take it out", "take out", "wipe", "drop", "gone", "lose", "discard")
REMOVE += ("throw out", "throw away", "bare", "no clothing", "nothing on it", "vacant", "removed")
PLAIN = ("nothing behind", "no background", "plain background", "blank background", "no backdrop")
PLAIN += ("nothing else behind", "anything behind", "nothing around", "nothing else around")
PLAIN += ("nothing in the back", "nothing in the background", "anything around", "empty background")
PLAIN += ("clean background", "bare background", "no wall", "no scenery", "no surroundings")
PLAIN += ("anything else behind", "anything in the background", "nothing at the back", "cut out")
PLAIN += ("clear background", "blank wall", "bare wall", "empty wall", "without a background")
PLAIN += ("without background", "no setting", "plain wall", "without a backdrop", "no scene")

# Where the backdrop is meant: "pink" beside one of these is the pale pink of a background.
BACKDROPS = ("background", "backdrop", "wall", "behind", "backcloth", "surroundings", "scene")
BACKDROPS += ("scenery", "setting", "canvas", "paper", "screen", "back", "walls", "surface", "room")
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
background backdrop wall behind against front around surroundings scene scenery walls canvas paper
screen back surface room sitting standing lying placed floating hanging place pair kind sort shade
tone hue bit keep keeping rest else everything set place placed add added here there what about
how if see take which who where when up down out off over under all both something anything
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
