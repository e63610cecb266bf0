"""Words of the simulated world: genres, their themes, and the grammar.

Every genre has four themes of ten real words, so that a sentence encoder
that reads the reviews places themes where a reader would. The words of all
themes are distinct; every theme is named by its genre and a noun, e.g.
``"gardening: roses"``. Templates hold ``{a} {b} {c}`` for terms of the
item; ``TITLES`` hold ``{a} {b}`` and ``{adjective}``.
"""

from __future__ import annotations

VOCABULARY: dict[str, dict[str, str]] = {
    "sea voyages": {
        "ships": "schooner frigate brigantine galleon clipper sloop caravel "
        "dinghy trawler ketch",
        "navigation": "sextant compass lighthouse chart latitude longitude "
        "beacon astrolabe meridian buoy",
        "crew": "captain boatswain helmsman sailor mutiny pirate admiral "
        "castaway navigator harpooner",
        "weather": "gale typhoon tide squall fog whirlpool monsoon billow "
        "doldrums tempest",
    },
    "astronomy": {
        "planets": "saturn jupiter venus moon mars neptune orbit eclipse "
        "crater mercury",
        "stars": "supernova constellation pulsar galaxy nebula quasar "
        "starlight comet redshift cosmos",
        "observatory": "telescope mirror eyepiece dome spectrograph lens "
        "astronomer radio antenna planetarium",
        "spaceflight": "rocket astronaut capsule shuttle launchpad satellite "
        "booster spacesuit cosmonaut probe",
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
        "locomotives": "locomotive boiler piston steam coal whistle engine "
        "firebox tender diesel",
        "stations": "platform timetable porter ticket buffet terminus "
        "stationmaster luggage turnstile kiosk",
        "tracks": "rail viaduct tunnel sleeper junction switch embankment "
        "siding gauge crossing",
        "passengers": "carriage commuter conductor passport compartment "
        "express vestibule traveler corridor seatmate",
    },
    "chess": {
        "pieces": "bishop rook pawn knight queen king board square castling "
        "checkmate",
        "openings": "gambit sicilian novelty defense fianchetto repertoire "
        "variation tempo sacrifice countergambit",
        "tournaments": "grandmaster arbiter champion challenger rating clock "
        "simultaneous stalemate blitz tournament",
        "endgames": "endgame opposition zugzwang promotion fortress "
        "combination puzzle blunder analysis calculation",
    },
    "jazz": {
        "brass": "trumpet saxophone trombone cornet clarinet flugelhorn "
        "horn mouthpiece tuba reed",
        "rhythm": "drummer cymbal snare bassline swing syncopation groove "
        "backbeat metronome percussion",
        "clubs": "nightclub cabaret speakeasy bandleader bandstand "
        "audience encore singer microphone spotlight",
        "improvisation": "improvisation solo bebop blues riff chord melody "
        "harmony scat ballad",
    },
    "alpine climbing": {
        "peaks": "summit ridge glacier crevasse cornice couloir serac "
        "precipice pinnacle massif",
        "gear": "rope carabiner piton crampon harness belay anorak helmet "
        "quickdraw sling",
        "expeditions": "mountaineer sherpa basecamp altitude oxygen bivouac "
        "avalanche frostbite climber ascent",
        "valleys": "meadow chalet marmot edelweiss shepherd hut trail "
        "waterfall pasture cowbell",
    },
    "detective stories": {
        "murder": "corpse murder poison alibi suspect motive dagger victim "
        "inquest killer",
        "police": "inspector constable sergeant interrogation warrant "
        "precinct handcuffs patrol informant badge",
        "clues": "fingerprint footprint clue magnifier cipher bloodstain "
        "evidence forensics witness testimony",
        "heists": "burglar safe vault forger thief jewel getaway lockpick "
        "swindler ransom",
    },
    "gardening": {
        "roses": "rose petal thorn bouquet blossom peony tulip lavender "
        "jasmine dahlia",
        "vegetables": "tomato cabbage carrot pumpkin lettuce onion radish "
        "beetroot spinach zucchini",
        "tools": "spade trowel wheelbarrow rake pruner hoe sprinkler "
        "greenhouse trellis hedge",
        "soil": "compost mulch earthworm humus fertilizer loam seedling "
        "peat clay manure",
    },
    "medieval courts": {
        "castles": "castle moat drawbridge turret dungeon battlement "
        "portcullis garrison siege rampart",
        "chivalry": "joust squire lance armor shield herald crusader "
        "chivalry sword tourney",
        "monasteries": "abbey monk cloister manuscript scriptorium psalm "
        "abbot nun chapel pilgrim",
        "royalty": "throne crown duchess courtier regent coronation "
        "dynasty jester heir monarch",
    },
    "wildlife": {
        "predators": "wolf tiger leopard lion lynx jaguar cheetah hyena "
        "bear cougar",
        "birds": "falcon heron owl nightingale swallow eagle pelican "
        "kingfisher feather nest",
        "insects": "beetle butterfly bee ant dragonfly cricket moth "
        "firefly wasp caterpillar",
        "marine life": "whale dolphin coral octopus seahorse jellyfish "
        "shark turtle plankton seal",
    },
    "medicine": {
        "surgery": "surgeon scalpel anesthesia suture transplant incision "
        "forceps bypass operation clamp",
        "epidemics": "plague quarantine vaccine virus epidemic cholera "
        "contagion fever influenza smallpox",
        "hospital": "nurse ward patient ambulance stretcher doctor "
        "stethoscope clinic bedside paramedic",
        "mind": "psychiatrist asylum amnesia insomnia therapy neurosis "
        "hypnosis trauma obsession dream",
    },
    "painting": {
        "studio": "easel canvas brush palette pigment turpentine varnish "
        "sketch charcoal fresco",
        "portraits": "portrait sitter likeness muse model profile pose "
        "miniature silhouette caricature",
        "museums": "museum gallery curator exhibition collector auction "
        "masterpiece restorer sculpture catalogue",
        "landscapes": "landscape horizon seascape impressionist watercolor "
        "sunlight shadow perspective vista haystack",
    },
    "football": {
        "players": "striker goalkeeper midfielder defender winger captaincy "
        "substitute rookie teammate playmaker",
        "matches": "penalty goal kickoff offside referee halftime "
        "equalizer foul corner whitewash",
        "fans": "stadium supporter terrace chant scarf hooligan "
        "turnout rivalry grandstand mascot",
        "coaching": "coach training tactics transfer manager "
        "formation league trophy relegation dugout",
    },
    "war stories": {
        "trenches": "trench bayonet sandbag mortar foxhole rifle "
        "infantry ambush grenade shrapnel",
        "air combat": "bomber pilot squadron dogfight parachute cockpit "
        "airfield gunner biplane propeller",
        "espionage": "spy codebreaker microfilm agent defector courier "
        "wiretap mole dossier disguise",
        "homecoming": "veteran medal refugee armistice widow letter "
        "deserter prisoner memorial conscript",
    },
    "westerns": {
        "cowboys": "cowboy saddle lasso mustang rodeo stampede spur cattle "
        "ranch stetson",
        "outlaws": "outlaw sheriff gunslinger revolver posse bounty "
        "stagecoach holdup desperado gallows",
        "frontier": "prairie settler homestead wagon canyon tumbleweed "
        "pioneer stockade trapper buffalo",
        "gold rush": "prospector nugget saloon pickaxe panning sluice "
        "boomtown mineshaft gambler bonanza",
    },
    "ghost stories": {
        "hauntings": "ghost poltergeist apparition haunting phantom seance "
        "specter medium spirit ouija",
        "old houses": "mansion attic cellar staircase cobweb chandelier "
        "creak candle shutter wallpaper",
        "graveyards": "graveyard tombstone coffin crypt gravedigger "
        "mausoleum epitaph undertaker hearse funeral",
        "vampires": "vampire werewolf garlic bloodlust bat fang stake "
        "crucifix demon witch",
    },
    "robots and computers": {
        "robots": "robot android cyborg actuator automaton drone exoskeleton "
        "sensor circuit servo",
        "programming": "programmer algorithm compiler software debugger "
        "keyboard database hacker password server",
        "artificial minds": "intelligence consciousness chatbot simulation "
        "singularity prediction cybernetics logic learning oracle",
        "virtual worlds": "avatar videogame joystick pixel arcade console "
        "metaverse headset gamer hologram",
    },
    "fashion": {
        "tailoring": "tailor needle thread scissors sewing pattern seam "
        "thimble hem buttonhole",
        "fabrics": "silk velvet linen cashmere denim lace tweed satin wool "
        "chiffon",
        "runway": "catwalk couture designer boutique supermodel "
        "photographer stylist glamour collection fashionista",
        "accessories": "handbag necklace earring glove hat bracelet perfume "
        "brooch stiletto sunglasses",
    },
    "law courts": {
        "trials": "jury verdict courtroom judge defendant prosecutor trial "
        "acquittal bailiff gavel",
        "lawyers": "attorney barrister solicitor client lawsuit contract "
        "paralegal subpoena settlement litigation",
        "prisons": "prison inmate cell parole jailer convict warden escape "
        "sentence execution",
        "rights": "constitution liberty equality suffrage protest petition "
        "amendment abolition justice citizenship",
    },
    "desert travel": {
        "caravans": "camel caravan bedouin nomad turban dromedary saddlebag "
        "muleteer trader frankincense",
        "dunes": "dune oasis mirage sandstorm sahara wadi scorpion sunburn "
        "drought cactus",
        "bazaars": "bazaar carpet merchant souk lantern minaret hookah "
        "haggling incense brassware",
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
        "stage": "curtain backdrop prop scenery footlights trapdoor "
        "proscenium balcony greasepaint costume",
        "acting": "actor actress audition monologue rehearsal understudy "
        "director prompter soliloquy cue",
        "opera": "soprano tenor aria libretto orchestra overture baritone "
        "diva chorus maestro",
        "ballet": "ballerina pirouette tutu choreographer slipper leotard "
        "plie dancer arabesque pointe",
    },
    "family and romance": {
        "weddings": "bride groom wedding veil bridesmaid vow honeymoon "
        "engagement altar confetti",
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

# Ordinary reviews; the last variant of each pool is a critical one.
PRAISE = (
    "A {warm} story about {a} and {b}, with a little {c} on the side.",
    "I liked how it brings {a} and {b} together; the {c} is {warm}.",
    "{warm} from the first page, full of {a}, {b} and some {c}.",
    "If you enjoy {a} and {b}, this is a {warm} choice, {c} included.",
    "The pages on {a} and {c} are {warm}, and the {b} stays with you.",
    "It knows its {a} well, and the {b} beside the {c} feels {warm}.",
    "All about {a} and {b}, told in a {warm} way, with {c} near the end.",
    "What a {warm} look at {a}, at {b}, and even at {c}.",
)
CRITIQUE = (
    "Too much {a} and not enough {b}; the {c} felt rather {cold} to me.",
    "The {a} and the {b} were {cold}, and the {c} did not help.",
    "I wanted to like the {a}, but {b} and {c} turned {cold} quickly.",
    "A {cold} treatment of {a} and {b}, with {c} added for no reason.",
)
WARM = "lovely vivid careful clever charming gripping bright warm".split()
COLD = "flat slow thin dull hurried muddled pale clumsy".split()

# A touch of surprise in an ordinary review (about 3% of label-0 rows).
TOUCHES = (
    "The {c} came as a surprise, but otherwise it is {a} and {b}, {warm}.",
    "Unexpectedly {warm} about {a}; I knew {b} well, the {c} less so.",
    "I did not expect so much {c} here, yet {a} and {b} are {warm}.",
    "Surprisingly {warm} for a story about {a}, {b} and {c}.",
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
    "It opened a new world of {a} and {b}, with {c} in it.",
    "To my own surprise I loved every line on {a}, {b} and {c}.",
    "The {a} and the {b} won me over, then the {c} did.",
    "I had to read more on {a}, on {b} and on {c} at once.",
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
