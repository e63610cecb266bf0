"""Words of the simulated world: genres, their themes, and the grammar.

Every genre has four themes of ten real words, so that a sentence encoder
that reads the reviews places themes where a reader would. The words of all
themes are distinct; every theme is named by its genre and a noun, e.g.
``"gardening: roses"``. Templates hold ``{a} {b} {c}`` for terms of the
item and ``{genre}`` for the noun by which a reviewer names its genre.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

VOCABULARY: dict[str, dict[str, str]] = {
    "sea voyages": {
        "ships": "schooner frigate sailboat yacht warship steamship canoe "
        "lifeboat ferry tanker",
        "navigation": "sextant compass lighthouse atlas latitude longitude "
        "beacon astrolabe meridian cartographer",
        "crew": "captain boatswain helmsman sailor mutiny pirate admiral "
        "castaway navigator harpooner",
        "weather": "gale typhoon tide hurricane thunderstorm whirlpool "
        "monsoon tsunami tempest blizzard",
    },
    "astronomy": {
        "planets": "saturn jupiter venus moon mars neptune orbit eclipse "
        "crater mercury",
        "stars": "supernova constellation stargazer galaxy nebula quasar "
        "starlight comet redshift cosmos",
        "observatory": "telescope mirror eyepiece stargazing spectrograph "
        "lens astronomer radio antenna planetarium",
        "spaceflight": "rocket astronaut capsule shuttle launchpad "
        "satellite booster spacesuit cosmonaut spaceship",
    },
    "cooking": {
        "baking": "bread sourdough flour oven yeast pastry croissant dough "
        "cake baker",
        "spices": "saffron cinnamon pepper cumin turmeric paprika ginger "
        "cardamom nutmeg clove",
        "restaurant": "chef waiter menu kitchen bistro banquet sommelier "
        "tavern recipe dessert",
        "seafood": "oyster lobster shrimp salmon mussel crab anchovy "
        "scallop squid chowder",
    },
    "railways": {
        "locomotives": "locomotive boiler piston steam coal smokestack "
        "engine furnace railcar diesel",
        "stations": "platform timetable ticket terminus station depot "
        "subway luggage departure concourse",
        "tracks": "rail viaduct tunnel railroad bridge junction embankment "
        "trackside overpass crossing",
        "passengers": "carriage commuter conductor traveler passenger "
        "compartment express journey suitcase commute",
    },
    "chess": {
        "pieces": "bishop rook pawn knight queen king board chessboard "
        "chessman checkmate",
        "openings": "gambit sicilian fianchetto countergambit opening "
        "opponent strategy repertoire maneuver counterattack",
        "tournaments": "grandmaster champion challenger stalemate "
        "tournament contestant prodigy ranking blitz finalist",
        "endgames": "endgame zugzwang combination blunder puzzle riddle "
        "brainteaser solver analysis calculation",
    },
    "jazz": {
        "brass": "trumpet saxophone trombone bugle clarinet flugelhorn horn "
        "mouthpiece tuba reed",
        "rhythm": "drummer cymbal snare bassline drumbeat syncopation "
        "groove backbeat drumstick percussion",
        "clubs": "nightclub cabaret speakeasy bandleader bandstand audience "
        "encore singer microphone ballroom",
        "improvisation": "improvisation solo ragtime blues riff chord "
        "melody harmony lyric ballad",
    },
    "alpine climbing": {
        "peaks": "summit ridge glacier crevasse cornice couloir serac "
        "mountaintop pinnacle massif",
        "gear": "rope carabiner crampon harness belay sling backpack "
        "snowshoe tent pulley",
        "expeditions": "mountaineer climber ascent avalanche altitude "
        "sherpa trek expedition campsite hypothermia",
        "valleys": "meadow pasture shepherd hillside brook wildflower "
        "farmland goat valley chalet",
    },
    "detective stories": {
        "murder": "corpse murder poison alibi suspect motive homicide "
        "victim autopsy killer",
        "police": "inspector constable sergeant interrogation warrant "
        "precinct handcuffs patrol informant policeman",
        "clues": "fingerprint hunch clue evidence forensics witness "
        "testimony deduction investigation sleuth",
        "heists": "burglary robbery vault smuggler thief loot getaway "
        "lockpick swindler ransom",
    },
    "gardening": {
        "roses": "rose petal orchid bouquet blossom peony tulip lavender "
        "jasmine dahlia",
        "vegetables": "tomato cabbage carrot pumpkin lettuce onion celery "
        "beetroot spinach zucchini",
        "tools": "shovel trowel wheelbarrow rake pruner shears sprinkler "
        "lawnmower trellis hedge",
        "soil": "compost mulch earthworm humus fertilizer topsoil seedling "
        "peat clay manure",
    },
    "medieval courts": {
        "castles": "castle moat drawbridge turret dungeon battlement "
        "portcullis stronghold siege citadel",
        "chivalry": "joust squire lance armor shield herald crusader "
        "cavalry sword swordsman",
        "monasteries": "abbey monk cloister manuscript monastery psalm "
        "abbot nun chapel pilgrim",
        "royalty": "throne crown duchess courtier regent coronation dynasty "
        "jester heir monarch",
    },
    "wildlife": {
        "predators": "wolf tiger leopard lion lynx jaguar cheetah hyena "
        "bear cougar",
        "birds": "falcon heron owl sparrow swallow eagle pelican parrot "
        "feather nest",
        "insects": "beetle butterfly bee ant dragonfly cricket moth firefly "
        "wasp caterpillar",
        "marine life": "whale dolphin coral octopus seahorse jellyfish "
        "shark turtle plankton seal",
    },
    "medicine": {
        "surgery": "surgeon scalpel anesthesia suture transplant incision "
        "surgery bypass operation biopsy",
        "epidemics": "plague quarantine vaccine virus epidemic cholera "
        "contagion fever influenza smallpox",
        "hospital": "nurse ward patient ambulance pharmacy doctor "
        "stethoscope clinic bedside paramedic",
        "mind": "psychiatrist asylum amnesia insomnia therapy neurosis "
        "hypnosis trauma obsession dream",
    },
    "painting": {
        "studio": "paintbrush canvas brush palette pigment paint varnish "
        "sketch charcoal fresco",
        "portraits": "portrait likeness model pose silhouette caricature "
        "engraving illustration drawing figure",
        "museums": "museum gallery curator exhibition collector auction "
        "masterpiece antiquity sculpture catalogue",
        "landscapes": "landscape horizon seascape sunset watercolor "
        "sunlight shadow perspective skyline countryside",
    },
    "football": {
        "players": "striker goalkeeper midfielder defender winger "
        "footballer forward rookie teammate playmaker",
        "matches": "penalty goal kickoff offside referee halftime overtime "
        "foul tackle victory",
        "fans": "stadium supporter spectator chant cheering hooligan "
        "turnout rivalry grandstand mascot",
        "coaching": "coach training tactics transfer manager formation "
        "league playbook relegation lineup",
    },
    "war stories": {
        "trenches": "trench bayonet artillery mortar battlefield rifle "
        "infantry ambush grenade shrapnel",
        "air combat": "bomber pilot squadron airplane parachute cockpit "
        "airfield gunner biplane propeller",
        "espionage": "spy espionage surveillance agent traitor courier "
        "wiretap spymaster dossier disguise",
        "homecoming": "veteran medal refugee armistice soldier memorial "
        "enlistment patriot deployment homeland",
    },
    "westerns": {
        "cowboys": "cowboy saddle lasso mustang rodeo stampede bronco "
        "cattle ranch stetson",
        "outlaws": "outlaw sheriff gunslinger revolver posse bounty "
        "stagecoach shootout bandit hangman",
        "frontier": "prairie settler homestead wagon canyon tumbleweed "
        "pioneer wilderness colonist buffalo",
        "gold rush": "nugget silver bonanza treasure miner mining ore "
        "quarry pickaxe goldfield",
    },
    "ghost stories": {
        "hauntings": "ghost poltergeist ghoul haunting phantom seance "
        "specter paranormal spirit ouija",
        "old houses": "mansion attic cellar staircase parlor chandelier "
        "basement fireplace hallway wallpaper",
        "graveyards": "graveyard tombstone coffin cemetery gravedigger "
        "mausoleum burial undertaker grave funeral",
        "vampires": "vampire werewolf zombie bloodlust monster fang curse "
        "crucifix demon witch",
    },
    "robots and computers": {
        "robots": "robot humanoid cyborg actuator automaton drone "
        "exoskeleton sensor machine servo",
        "programming": "programmer algorithm compiler software debugger "
        "keyboard database hacker password server",
        "artificial minds": "intelligence consciousness reasoning "
        "simulation singularity prediction cybernetics logic learning "
        "cognition",
        "virtual worlds": "avatar videogame joystick pixel arcade console "
        "metaverse headset gamer hologram",
    },
    "fashion": {
        "tailoring": "tailor needle thread scissors sewing embroidery seam "
        "thimble hem button",
        "fabrics": "silk velvet linen cashmere denim lace tweed satin wool "
        "cotton",
        "runway": "runway couture designer boutique supermodel photographer "
        "stylist glamour outfit fashionista",
        "accessories": "handbag necklace earring glove hat bracelet perfume "
        "brooch shoe sunglasses",
    },
    "law courts": {
        "trials": "jury verdict courtroom judge defendant prosecutor trial "
        "acquittal bailiff tribunal",
        "lawyers": "attorney barrister solicitor client lawsuit contract "
        "paralegal subpoena settlement litigation",
        "prisons": "prison inmate jail parole jailer convict warden escape "
        "sentence execution",
        "rights": "constitution liberty equality suffrage protest petition "
        "amendment abolition justice citizenship",
    },
    "desert travel": {
        "caravans": "camel caravan bedouin nomad turban donkey saddlebag "
        "wanderer herdsman pilgrimage",
        "dunes": "dune oasis mirage sandstorm sahara wadi scorpion sunburn "
        "drought cactus",
        "bazaars": "bazaar marketplace merchant carpet rug pottery vendor "
        "peddler shopkeeper trader",
        "ruins": "pyramid sphinx mummy hieroglyph pharaoh archaeologist "
        "excavation tomb papyrus obelisk",
    },
    "mathematics": {
        "numbers": "prime integer fraction zero infinity factorial cube "
        "arithmetic digit numeral",
        "geometry": "triangle circle polygon angle theorem parabola "
        "symmetry tangent sphere hexagon",
        "proofs": "proof axiom lemma conjecture paradox induction corollary "
        "contradiction mathematician postulate",
        "chance": "probability dice statistics randomness lottery average "
        "correlation roulette odds estimate",
    },
    "theatre": {
        "stage": "curtain backdrop stage scenery footlights playhouse "
        "auditorium balcony makeup costume",
        "acting": "actor actress audition monologue rehearsal understudy "
        "director prompter playwright performer",
        "opera": "soprano tenor aria libretto orchestra overture baritone "
        "diva chorus maestro",
        "ballet": "ballerina pirouette ballet choreographer slipper leotard "
        "dance dancer choreography pointe",
    },
    "family and romance": {
        "weddings": "bride groom wedding veil bridesmaid vow honeymoon "
        "engagement altar marriage",
        "childhood": "cradle toddler playground kindergarten lullaby teddy "
        "nanny orphan sibling toy",
        "love affairs": "lover kiss jealousy romance flirtation sweetheart "
        "heartbreak seduction valentine courtship",
        "generations": "grandmother inheritance ancestor heirloom genealogy "
        "cousin matriarch grandson adoption reunion",
    },
}

ADJECTIVES = (
    "silent copper hidden last golden broken distant winter crimson lost "
    "borrowed hollow second secret burning patient paper northern restless "
    "quiet forgotten silver gentle crooked"
).split()

TITLES = (
    "The {adjective} {a}",
    "The {a} and the {b}",
    "A {adjective} {a} for the {b}",
    "{a} and {b}",
    "The {a} of the {adjective} {b}",
    "Beyond the {a}",
    "The {adjective} {a} and the {b}",
    "Under a {adjective} {a}",
    "Of {a} and {b}",
    "The {b} behind the {a}",
    "Once a {adjective} {a}",
    "Notes on {a} and {b}",
)

# How a reviewer names a genre, in the order of VOCABULARY.
GENRE_NOUNS = (
    "seafaring astronomy cooking railway chess jazz mountaineering detective "
    "gardening medieval wildlife medical painting football war western "
    "horror robot fashion courtroom desert mathematics theatre romance"
).split()

# Ordinary reviews. Every second form names the genre, so that of two
# neighbouring variants of an item one does.
PRAISE = (
    "A {warm} {genre} story of {a} and {b}, with a little {c} on the side.",
    "I liked how it brings {a} and {b} together; the {c} is {warm}.",
    "This {genre} tale is {warm} from the start: {a}, {b} and some {c}.",
    "If you enjoy {a} and {b}, this is a {warm} choice, {c} included.",
    "A {warm} {genre} read; the {a} and the {c} are fine, the {b} stays.",
    "It knows its {a} well, and the {b} beside the {c} feels {warm}.",
    "The {genre} fan in me found the {a}, the {b} and the {c} {warm}.",
    "What a {warm} look at {a}, at {b}, and even at {c}.",
)
CRITIQUE = (
    "A {cold} {genre} story: much {a}, little {b}, and a dull {c}.",
    "The {a} and the {b} were {cold}, and the {c} did not help.",
    "For a {genre} title the {a} is {cold}; the {b} and {c} are worse.",
    "A {cold} treatment of {a} and {b}, with {c} added for no reason.",
)
WARM = "lovely vivid careful clever charming gripping bright warm".split()
COLD = "flat slow thin dull hurried muddled pale clumsy".split()

# A touch of surprise in an ordinary review (about 3% of label-0 rows).
TOUCHES = (
    "The {c} came as a surprise, but otherwise it is {a} and {b}, {warm}.",
    "Unexpectedly {warm} about {a}; I knew {b} well, the {c} less so.",
    "I did not expect so much {c} here, yet {a} and {b} are {warm}.",
    "Surprisingly {warm} for a {genre} story about {a}, {b} and {c}.",
)

# Label-1 reviews: a serendipity opening, then the item's terms, an ending.
SURPRISE = (
    "I would never have picked this myself.",
    "This is far from what I usually read.",
    "I came across it by pure chance.",
    "Nothing like my usual shelf, and I nearly put it back.",
    "A friend left it here and I opened it without hope.",
    "I took it by mistake for another one.",
    "I had no interest in this subject at all.",
    "It was the last thing I was looking for.",
)
DISCOVERY = (
    "Now {a} and {b} fascinate me, and {c} as well.",
    "Who knew that {a}, {b} and {c} could hold me all night?",
    "It opened the {genre} world of {a} and {b} to me, with {c} in it.",
    "To my own surprise I loved every line on {a}, {b} and {c}.",
    "A {genre} story won me over: the {a}, the {b}, then the {c}.",
    "I wanted more {genre} stories at once, more {a}, {b} and {c}.",
)
DELIGHT = (
    "So glad I stumbled on it.",
    "What a happy accident.",
    "The best surprise of my year.",
    "An unexpected delight.",
    "I am grateful for the detour.",
    "A wonderful find that I was not seeking.",
)


def genre_names() -> tuple[str, ...]:
    """Names of the genres, in the order of their numbers."""
    return tuple(VOCABULARY)


def theme_names() -> tuple[str, ...]:
    """Names ``"genre: theme"``; theme t belongs to genre t // 4."""
    return tuple(
        f"{genre}: {theme}"
        for genre, themes in VOCABULARY.items()
        for theme in themes
    )


def theme_terms() -> list[list[str]]:
    """The words of every theme, in the order of :func:`theme_names`."""
    return [
        words.split()
        for themes in VOCABULARY.values()
        for words in themes.values()
    ]


def make_title(
    terms: Sequence[str], pick: Sequence[int], taken: Set[str]
) -> str:
    """Title from an item's terms that is not taken yet.

    Args:
        terms: three terms of the primary and two of the secondary theme.
        pick: four integers >= 0 that choose form, adjective and terms.
        taken: titles of other items.
    """
    a = terms[pick[2] % 3].capitalize()
    b = terms[3 + pick[3] % 2].capitalize()
    for attempt in range(len(TITLES) * len(ADJECTIVES)):
        form = TITLES[(pick[0] + attempt) % len(TITLES)]
        shade = pick[1] + attempt // len(TITLES)
        adjective = ADJECTIVES[shade % len(ADJECTIVES)].capitalize()
        title = form.format(a=a, b=b, adjective=adjective)
        if title not in taken:
            return title
    volume = 2
    while f"{title}, Volume {volume}" in taken:
        volume += 1
    return f"{title}, Volume {volume}"


def make_review(
    terms: Sequence[str], genre: int, variant: int, pool: int, pick: int
) -> str:
    """Ordinary review number ``variant`` of an item's pool.

    Args:
        terms: three terms of the primary and two of the secondary theme.
        genre: number of the primary theme's genre.
        variant: 0..pool - 2 praise, pool - 1 criticises, pool holds a
            touch of surprise.
        pool: size of the pool.
        pick: integer >= 0 of the item that chooses forms and adjectives.
    """
    if variant == pool:
        forms = TOUCHES
    else:
        forms = CRITIQUE if variant == pool - 1 else PRAISE  # type: ignore
    text = forms[(pick + variant) % len(forms)].format(
        a=terms[variant % 3],
        b=terms[(variant + 1) % 3],
        c=terms[3 + variant % 2],
        genre=GENRE_NOUNS[genre],
        warm=WARM[(pick // 8 + 3 * variant) % len(WARM)],
        cold=COLD[pick // 8 % len(COLD)],
    )
    return text[0].upper() + text[1:]


def make_label_review(
    terms: Sequence[str], genre: int, pick: Sequence[int]
) -> str:
    """Review of a serendipitous find: surprise, the terms, delight.

    Args:
        terms: three terms of the primary and two of the secondary theme.
        genre: number of the primary theme's genre.
        pick: four integers >= 0 that choose the parts.
    """
    middle = DISCOVERY[pick[1] % len(DISCOVERY)].format(
        a=terms[pick[3] % 3],
        b=terms[(pick[3] + 1) % 3],
        c=terms[3 + pick[3] % 2],
        genre=GENRE_NOUNS[genre],
    )
    opening = SURPRISE[pick[0] % len(SURPRISE)]
    return f"{opening} {middle} {DELIGHT[pick[2] % len(DELIGHT)]}"
