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
            pint-sized, microscopic, doll-sized, doll sized, itty bitty,
            itty-bitty, modest, weeny, thumb-sized, bite-sized
        """,
        "large": """
            giant, gigantic, enormous, massive, oversized, extra large, grand, immense,
            colossal, vast, jumbo, xl, xxl, king-sized, mighty, hefty, big-sized, supersized,
            sizeable, humongous, monumental, full-size, largish, biggish, ginormous, whopping,
            whopping great, towering, outsized, extra-large, house-sized, great big,
            life-sized
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
            singlet, camisole, crop top, sleeveless top, football shirt, graphic tee,
            short-sleeved shirt, crew-neck tee, sports top, cotton top, band tee, short-sleeved
            cotton crew neck, crew neck, cotton crew neck, short sleeves, muscle shirt, vest
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
            crewneck, woollen jumper, hooded sweatshirt, knitted sweater, sweatr, sweat shirt,
            knitted thing, jumpers
        """,
        "dress": """
            frock, sundress, evening dress, summer dress, robe, ball gown, wedding dress, maxi
            dress, mini dress, cocktail dress, pinafore, nightgown, nightdress, evening gown,
            slip dress, shift dress, party dress, long dress, prom dress, sleeveless dress,
            ballgown, gala dress, sun dress, dirndl, sari, gala gown, bridal gown
        """,
        "coat": """
            overcoat, parka, raincoat, winter coat, blazer, anorak, trench, trench coat,
            windbreaker, windcheater, mackintosh, duffel coat, duffle coat, cloak, peacoat,
            puffer, puffer jacket, down jacket, leather jacket, denim jacket, bomber jacket,
            bomber, topcoat, greatcoat, cagoule, rain jacket, fur coat, suit jacket, ski jacket,
            lab coat, jean jacket, rain coat, mac, barbour, down coat, ski coat, duster
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
            kicks, sneaker shoe, loafer, footwear for running, converse, nikes, tennis footwear,
            sport footwear
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
            boot, doc martens, doc marten, dr martens, jackboot, snow shoe, thigh boot, gum boot
        """,
    },
    "background": {
        "white": """
            snow white, pure white, plain white, chalk white, ivory, snow, milk, milky white,
            milky, cream, off-white, bright white, paper white, chalk, alabaster, eggshell,
            porcelain, pearl, pearl white, bone white, clean white, whitewashed, cream white,
            creamy white, printer paper, sheet of paper, blank sheet, blank sheet of paper,
            blank paper, fresh snow, bedsheet, salt, sugar, swan, white as snow
        """,
        "grey": """
            silver, ash grey, stone grey, light grey, concrete grey, concrete, slate, slate
            grey, ash, stone, cement, steel grey, dove grey, smoke, smoky, smoky grey, foggy,
            misty, pewter, gunmetal, granite, mid grey, dark grey, medium grey, neutral grey,
            silvery, charcoal grey, cloudy, mouse grey, silver grey, pale grey, greyscale grey,
            cloud grey, overcast, rain cloud, rainy sky, bare concrete, asphalt, pavement,
            elephant grey, thundercloud, pebble, fog, mist, drizzle
        """,
        "black": """
            pitch black, jet black, night black, coal black, midnight black, ebony, onyx, coal,
            inky, ink black, raven, obsidian, pitch dark, darkness, soot, sooty, deep black,
            plain black, night, midnight, raven black, tar, dark black, pitch-dark, inky black,
            jet, all dark, lights off, lights out, at night, blackest black, unlit, moonless
            night, outer space, blackboard
        """,
        "pale blue": """
            sky blue, baby blue, ice blue, soft blue, powder blue, sky, pastel blue, icy blue,
            faint blue, washed-out blue, duck egg blue, glacier blue, frosty blue, delicate
            blue, light sky blue, whitish blue, arctic blue, bluish white, morning sky, faint
            bluish, glacier, light bluish, pale sky, airy blue, hazy blue
        """,
        "pale green": """
            mint, mint green, soft green, pastel green, pistachio, minty, faint green, celadon,
            seafoam, honeydew, tea green, delicate green, washed-out green, sea foam, sea foam
            green, pistachio green, seafoam green, light mint, whitish green, light greenish,
            pale lime, pale mint, cucumber water, peppermint, faint greenish, mint ice cream,
            light pistachio
        """,
        "pale pink": """
            baby pink, soft pink, pastel pink, blush, powder pink, faint pink, shell pink,
            ballet pink, blush pink, delicate pink, washed-out pink, candyfloss, cotton candy,
            whitish pink, powdery pink, light rose, pale rose, seashell, rosy tint, pale rosy,
            light rosy, faint rosy, marshmallow, pastel rose, dawn pink
        """,
    },
    "style": {
        "photo": """
            photographic, photographer, photo shoot, realistic, photorealistic, snapshot, real
            photo, lifelike, true to life, real life, camera, camera shot, real, photography,
            photographed, polaroid, studio shot, photoreal, realism, product shot, genuine
            photo, studio photograph, true-life, photo-like, camera picture, photographically,
            realistically, snapped, dslr, studio photo, phone camera, phone picture, instagram,
            film camera, webcam, shot with a camera, with a phone, with my phone, on a phone, on
            my phone, on a dslr, took a picture, took a photo
        """,
        "sketch": """
            sketched, sketchy, pencil, hand-drawn, pencil drawing, doodle, crayon, charcoal
            drawing, ink drawing, outline, line art, line drawing, scribble, scribbled, pen and
            ink, drawn by hand, pencilled, sketchbook, ballpoint, biro, etching, freehand, rough
            sketch, charcoal sketch, doodled, hand drawing, pencil sketch, penned, line-art,
            outlined, felt-tip, graphite, pen, ink, inked, jotted, fountain pen, drawn in ink,
            graphite drawing, rough lines, loose lines, drawing by hand, by hand, draughtsman
        """,
        "flat": """
            flat colours, vector, clip-art, comic, flat design, poster, cartoonish, cartoony,
            comic book, illustration, illustrated, vector graphic, vector art, solid colours,
            sticker, emoji, anime, cel shaded, plain colours, paper cut-out, cut-out,
            pop art, screen print, flat colour, simple shapes, animation, animated, comic strip,
            flat-coloured, cartoon-like, flat colors, flat color, clipart, infographic, solid
            fills, no shading, without shading, simple cartoon, road sign, symbol, pictogram,
            flat shapes, colouring book
        """,
        "pixel art": """
            pixels, 8-bit, retro game, pixel, blocky, video game, pixelart, pixelly, pixely,
            16-bit, eight-bit, sixteen-bit, sprite, retro, arcade, game boy, gameboy, nintendo,
            minecraft, low-res, low resolution, computer game, atari, pixellated, bitmap, retro
            arcade, retro gaming, old computer game, pixel graphics, 8 bit game, mosaic, pixel
            style, videogame, nes, snes, console game, old console game, old console, chunky
            pixels, big pixels, little squares, coloured squares, pac-man, tetris, space
            invaders, mario, game console, sega, 1980s game, eighties game, commodore, low
            resolution picture
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
_THINGS = {
    "red": """
        tomato, strawberry, ketchup, stop sign, poppy, ladybird, fire engine, post box, lobster,
        chilli, lipstick, radish, ripe apple, brick wall, santa, rose petal, beet soup, robin's
        breast
    """,
    "orange": """
        carrot, mandarin, fox, clementine, traffic cone, goldfish, basketball, clownfish, sweet
        potato, autumn leaf, nacho, life jacket, marmalade, autumn leaves
    """,
    "yellow": """
        banana, sunflower, canary, duckling, buttercup, daffodil, taxi, school bus, egg yolk,
        bumblebee, rubber duck, cheese, submarine, dandelion, the sun, chick, post-it
    """,
    "green": """
        leaf, cucumber, frog, avocado, pine tree, spinach, grass, lawn, meadow, lettuce,
        broccoli, cactus, clover, crocodile, ivy, kiwi, pickle, four-leaf clover, leprechaun,
        caterpillar, golf course
    """,
    "blue": """
        ocean, cornflower, sea, jay, deep lake, blueberry, deep ocean, swimming pool, summer
        sky, clear sky, whale, smurf, police uniform, bluebell, forget-me-not, peacock's neck
    """,
    "purple": """
        grape, aubergine, violet flower, beetroot, fig, thistle, plum jam, lavender field,
        amethyst stone, blackcurrant, crocus, grape juice, red cabbage, bishop's robe
    """,
    "pink": """
        flamingo, bubblegum, peony, piglet, raspberry yoghurt, cherry blossom, pig, prawn, ham,
        strawberry milk, bubble gum, hibiscus, valentine's card
    """,
    "brown": """
        bear, acorn, hazelnut, tree trunk, cinnamon stick, walnut, mud, bark, tree bark, coffee
        bean, potato, teddy bear, toast, gingerbread, peanut, autumn mud, cardboard, wood,
        conker
    """,
}
THINGS: dict[str, tuple[str, ...]] = {
    colour: tuple(" ".join(thing.split()) for thing in things.split(","))
    for colour, things in _THINGS.items()
}

# What a garment is for, said without its name.
DESCRIPTIONS: dict[str, tuple[str, ...]] = {
    "t-shirt": (
        "something with short sleeves for warm days",
        "a thing to wear under a jumper in summer",
        "what footballers wear on top",
        "a light top with short sleeves",
        "the cotton thing one pulls over the head in summer",
        "what a band prints its name on",
    ),
    "trousers": (
        "something for my legs",
        "what covers both legs",
        "the thing with two legs and pockets",
        "what one wears below the waist",
        "legwear for the office",
        "the denim thing for the legs",
    ),
    "pullover": (
        "something woolly for cold evenings",
        "what grandma knits",
        "a warm thing to pull over the head",
        "something knitted with long sleeves",
        "something cosy with a hood",
        "what one wears over a shirt in autumn",
    ),
    "dress": (
        "what a bride wears",
        "something to dance in at a ball",
        "a one-piece for a summer party",
        "what a princess wears",
        "a long flowing thing for the opera",
        "what a lady wears to a gala",
    ),
    "coat": (
        "something against the rain with long sleeves",
        "what one wears over everything in winter",
        "outerwear for snowy days",
        "what hangs by the door in winter",
        "a warm thing to put on outdoors",
        "what keeps the wind out",
    ),
    "sandal": (
        "something for my feet at the beach",
        "open footwear for hot days",
        "what lets the toes out",
        "footwear for the pool",
        "summer footwear with straps",
        "something airy for the feet",
    ),
    "shirt": (
        "something with a collar and buttons",
        "what one wears under a suit",
        "office wear with cuffs",
        "the thing one irons before a meeting",
        "a formal top with buttons down the front",
        "something smart with a collar",
    ),
    "sneaker": (
        "footwear for the gym",
        "something to run in",
        "what a jogger puts on the feet",
        "what one wears on a running track",
        "laced footwear for sports",
        "footwear for the tennis court",
    ),
    "bag": (
        "something to carry my shopping in",
        "a thing with handles for the market",
        "what one packs for a weekend",
        "something for carrying groceries",
        "something with a strap for my things",
        "what I put my books in",
    ),
    "boot": (
        "footwear for deep snow",
        "what a cowboy has on his feet",
        "something for walking in mud",
        "what keeps the feet dry in puddles",
        "sturdy footwear over the ankle",
        "what a hiker wears on the feet",
    ),
}  # fmt: skip

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

REMOVE = ("remove", "delete", "erase", "take away", "get rid of", "empty", "no garment")
REMOVE += ("away", "nothing left", "without any garment", "no clothes", "vanish", "disappear")
REMOVE += ("take it away", "take it out", "take out", "wipe", "gone", "lose", "discard")
REMOVE += ("throw out", "throw away", "no clothing", "nothing on it", "vacant", "removed", "ditch")
REMOVE += ("bin", "bin it", "chuck", "scrap", "leave out", "left out", "skip", "no items")
REMOVE += ("deserted", "emptiness", "blank scene", "blank picture", "blank image", "uninhabited")
REMOVE += ("only the background", "just the background", "only the backdrop", "just the backdrop")
REMOVE += ("just the bare backdrop", "no clothes at all", "without clothes", "no objects", "nobody")
PLAIN = ("nothing behind", "no background", "plain background", "blank background", "no backdrop")
PLAIN += ("nothing else behind", "anything behind", "nothing around", "nothing else around")
PLAIN += ("nothing in the back", "nothing in the background", "anything around", "empty background")
PLAIN += ("clean background", "bare background", "no wall", "no scenery", "no surroundings")
PLAIN += ("anything else behind", "anything in the background", "nothing at the back")
PLAIN += ("clear background", "without a background")
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
how if see take which who where when up down out off over under all both something anything way
much takes go goes going good great feels feel far nicer day meant sorry mean actually maybe
perhaps thanks thank hello hi hey ok okay well hmm wait hang second thoughts lets needs simple
care done nice pretty cute lovely elegant new old cheap comfortable fancy warm beautiful ordinary
vintage cotton leather woollen silk denim simply kindly possibly somehow anyway though although
because since while again once even still already ever today tomorrow yesterday right left little
lot lots many few other another such own every each am being having doing doesn't didn't isn't
aren't wasn't won't can't cannot couldn't wouldn't shouldn't that's there's here's what's how's
who's he she his her him hers someone somebody anyone everybody everyone people friend sister
brother mother father wife husband daughter son boss party work wedding holiday birthday present
gift shop market home think thinks guess know knows believe say said tell ask hope hoping wish
wonder wondering seem seems sound sounds consider decided decide fit suits suit match matches fine
perfect better best worse bad wrong enough somewhat slightly totally completely entirely
absolutely exactly certainly definitely probably mostly mainly merely type style-wise colour-wise
object subject motif stay stays leave leaves same-ish till until before after
"""
FUNCTION_WORDS = frozenset(_FUNCTION.split())

# Common things that the course cannot draw: asked for, they are refused by name.
_UNDRAWABLE = """
car cat dog house tree horse bicycle aeroplane boat ship train bus truck bridge castle mountain
river beach sunset forest flower garden bird fish elephant lion tiger dragon unicorn robot
spaceship rocket planet moon man woman child baby face person king queen table chair sofa lamp
laptop guitar piano violin drum pizza burger cake bread apple pie sandwich cup bottle knife
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
