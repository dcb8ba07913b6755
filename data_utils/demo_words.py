"""The ambiguous words of the demo task, and the clauses that show their senses.

    bank = place spot              the word, then the neutral nouns that may stand where the word does
    river: the ducks/geese ... _   clauses of the first sense: nature, bodies, things that can be touched
    money: the teller/clerk ... _  clauses of the second sense: institutions, machines, games, signs, ideas

Clauses are separated by ";". "_" is the slot of the word (or of its neutral noun), "a/b" offers a choice of single words.
The LAST clause of a sense never occurs in train. A slot follows an adjective or a demonstrative, so that "one" reads well there,
and never "a" or "an", so that any noun fits.
"""

from dataclasses import dataclass

LEXICON = """
bank = place spot
river: the ducks/geese slept on the muddy _ ; tall reeds hid that _ of the stream ; the angler/fisherman pulled a trout onto the low _ ;
  the flood washed away the sandy _ ; an otter/beaver climbed up the wet _ ; the canoe/boat drifted toward the grassy _
money: the teller/clerk counted cash at the new _ ; my sister got a cheap loan/mortgage from that _ ;
  the robbers/thieves emptied the safe of the old _ ; investors sold their shares in the large _ ;
  he opened a savings account at the local _ ; the auditor/accountant found unpaid debts at the small _
bat = one thing
animal: the little _ hung upside down in the cave ; the brown/grey _ ate moths and mosquitoes ;
  the hungry _ flew out of the barn at dusk ; an owl/hawk caught the smaller _ in the dark ; the blind _ spread its furry wings ;
  the young _ found insects with its ears
club: the batter/hitter swung the heavy _ at the ball ; the catcher/umpire picked up that wooden _ ;
  the team bought this _ for the new season ; she hit a home run with the old _ ; the cricket captain/player cracked his favourite _ ;
  the carpenter carved the same _ from ash wood
crane = one thing
bird: the white/grey _ stood on its long legs in the marsh ; the female _ laid two eggs in the nest ; the graceful _ swallowed a frog ;
  the young _ spread its feathers and flew south ; a fox crept toward that _ among the reeds ;
  the thirsty _ dipped its beak into the lake
machine: the builders lifted steel beams with the huge _ ; the operator climbed into the cab of the new _ ;
  the yellow/tall _ lowered concrete onto the roof ; the harbour/port ordered that _ to unload containers ;
  the cable of the old _ snapped at the building site ; engineers oiled the motor of the big _
mouse = one thing
animal: the cat chased the small _ under the bed ; the hungry _ nibbled at the cheese ; that _ squeaked in the cellar/attic ;
  an owl swallowed the little _ whole ; the trap caught the grey/brown _ by its tail ; the frightened _ ran into a hole in the wall
computer: the programmer/typist clicked twice with the new _ ; he plugged that _ into his laptop ; the cursor froze because of the old _ ;
  the office ordered the cheap/wireless _ with a keyboard ; she scrolled down the screen with the small _ ;
  the gamer changed the battery of the black _
seal = one thing
animal: the fat/grey _ lay on the ice with its pup ; the hungry _ dived after a herring ; a polar bear hunted the young _ ;
  the playful _ clapped its flippers at the zoo ; that _ swam around the rocky island ; the whale followed the small _ under the waves
stamp: the king pressed the royal _ into the wax ; the lawyer/notary broke the red _ on the envelope ;
  every treaty carried the official _ ; the clerk forged that _ on the document ; the customs officer checked the old _ of the parcel ;
  the letter bore the golden _ of the duke
bark = one thing
tree: beetles/ants crawled under the rough _ of the oak ; the campers peeled that _ off the birch trunk ;
  moss covered the thick _ of the pine ; a deer gnawed at the soft _ in winter ; the woodpecker drilled holes in the dry _ ;
  she rubbed her hand along the cracked _ of the elm
dog: the terrier/puppy gave that sharp _ at the postman ; a deep _ from the kennel woke us ; the hound answered with the same loud _ ;
  we heard the angry _ of the guard dog ; the poodle greeted its owner with that short _ ;
  strangers at the gate feared the fierce _ of the watchdog
spring = one thing
water: the hikers drank from the clear/cold _ ; fresh water bubbled up from the little _ ; the stream began at the hidden _ in the hills ;
  the villagers filled their buckets at that _ ; deer/goats came to the mountain _ to drink ;
  a bottle was filled with pure water at the old _
coil: the mechanic replaced the rusty _ of the truck ; the steel _ in the mattress squeaked ; the clock stopped because of that broken _ ;
  the toy jumped because of the tight _ inside ; the engineer stretched the metal _ with a weight ;
  he bent the thin wire into that new _
match = one thing
fire: she lit the candle/stove with the last _ ; the scout struck the dry _ against the box ; the wet/damp _ would not burn ;
  the forest fire began with that _ ; he held the burning _ until it reached his fingers ; smoke curled up from the small _
game: our team won the final _ by two goals ; the referee stopped the rough _ at half time ; the fans cheered all through that _ ;
  she lost the opening _ in three sets ; the tennis star trained hard for the big _ ; the goalkeeper was hurt in the first _
pitch = one thing
field: the players/strikers ran onto the wet _ ; the groundsman mowed the green _ before the cup final ;
  rain flooded that _ during half time ; the referee sent him off the muddy _ ; the club laid fresh turf on the old _ ;
  a dog chased the football across the big _
sound: the singer/soprano could not reach the high _ ; the violin was tuned to the correct _ ; the choir began on the wrong _ ;
  he has a fine ear for that _ in music ; the flute played the same low _ ; her voice rose to the clear _ of a bell
bass = one thing
fish: the angler/fisherman caught the big _ in the lake ; the cook fried the fresh _ with lemon ; the young _ swam among the weeds ;
  that _ swallowed the hook and the worm ; a heron speared the small _ in the shallow water ; the net held the heavy _ by its gills
music: the band recorded the loud _ with the drums ; he played jazz on the old _ ; the guitarist tuned the new _ before the concert ;
  she plucked the strings of the electric _ ; the singer liked the deep _ in that song ; the funk group hired a man for the second _
ring = one thing
jewel: the groom slipped the golden _ on her finger ; the jeweller/goldsmith polished the silver _ ; she lost that _ with the diamond ;
  the thief/burglar stole the precious _ and a necklace ; the queen wore the ruby _ on her left hand ;
  the bride admired the thin _ at the wedding
boxing: the boxer/champion climbed into the big _ ; the crowd shouted when he fell in that _ ; the wrestlers fought in the small _ ;
  the trainer waited beside the old _ with a towel ; the judges sat close to the bright _ during the fight ;
  a heavy punch threw him across the same _
palm = one thing
tree: coconuts fell from the tall _ on the beach ; a monkey/parrot sat high in that _ ; the storm bent the young _ by the lagoon ;
  we rested/slept in the shade of the green _ ; the island had only the old _ and some bushes ;
  the nomads found the second _ in the oasis
hand: she held the coins in her left/right _ ; the healer read the lines in his open _ ; the nurse put ice on the burnt _ ;
  he wiped his sweaty _ on his shirt ; the thorn scratched her soft _ and two fingers ; the child hid the sweet in her closed _
plant = one place
flower: the gardener watered the green _ every morning ; the dry _ lost its leaves ; bees came to the tall _ with the blue flowers ;
  the rabbit ate the young _ in the garden ; she moved the little _ into a pot of soil ; the roots of the old _ were rotten
factory: the workers went on strike at the new _ ; the company closed the old _ and fired the staff ; engineers built cars at that _ ;
  the big _ made steel for the railway ; the manager showed us the assembly line of the modern _ ; the nuclear _ sent power to the city
trunk = one thing
elephant: the elephant lifted the log with its strong _ ; the calf sprayed water from its little _ ;
  the zoo keeper stroked the long/grey _ ; the mammoth had curved tusks beside that _ ;
  the animal reached the high leaves with its thick _ ; the bull swung his huge _ at the lions
luggage: the traveller/sailor packed his clothes into the old _ ; the porter carried the heavy _ to the train ;
  she found letters in the dusty _ in the attic ; the lock of that _ was broken ; the ship's steward put labels on the leather _ ;
  grandmother kept her wedding dress in the wooden _
star = one thing
sky: the astronomer watched the bright _ through the telescope ; the distant _ exploded long ago ; three planets circled that _ ;
  the sailors steered by the northern _ at night ; the young _ shone in a cloud of gas ; the comet passed close to the small _
celebrity: the famous/young _ signed autographs for the fans ; reporters followed the old _ to her hotel ;
  the director gave that _ the leading role ; the film made him the biggest _ in hollywood ; the singer became the new _ of the show ;
  photographers waited for the rising _ on the red carpet
bolt = one thing
lightning: the bright/sudden _ of the storm split the oak ; thunder came right after that _ ;
  the clouds sent the second _ into the church tower ; the white _ lit the black clouds ; a cow was killed by the same _ in the storm ;
  rain fell when the blinding _ struck the hill
screw: the mechanic/plumber tightened the loose _ with a wrench ; the wheel came off because of the missing _ ;
  he fixed the shelf with the long _ ; the rusty _ broke in the engine ; the factory made that _ of steel ;
  the bridge was held by the single _ and a nut
nail = one thing
finger: she painted the long _ red ; the boy bit the dirty _ of his thumb ; the cut on his toe was under the broken _ ;
  the nurse/doctor cleaned the sore _ of the little finger ; the salon polished that _ for free ;
  the skin around the short _ was swollen
metal: the carpenter hit the long _ with a hammer ; the picture hung from the rusty _ in the wall ; the tyre was flat because of that _ ;
  he pulled the bent _ out of the plank ; the roof was fixed with the last _ ; the cobbler drove the small _ into the shoe
pupil = one thing
eye: the doctor shone a light into the wide/left _ ; the dark _ of the cat's eye grew in the dark ; the drops made the right _ larger ;
  the iris around that _ was green ; the drug shrank the small _ to a point ; the surgeon looked at the lens behind the black _
student: the teacher praised the young/clever _ for the essay ; the new _ forgot his homework ; the lazy _ failed the exam ;
  the school sent that _ home ; the best _ in the class solved the sum ; the headmaster gave the other _ a prize for reading
fan = one thing
person: the loyal/young _ cheered for the team ; the excited _ asked the singer for an autograph ; the angry _ shouted at the referee ;
  that _ bought every album of the band ; the oldest _ of the club had a season ticket ; the happy _ wore the colours of the team
device: the electric/small _ cooled the hot room ; the dusty _ blew air across the desk ; the mechanic oiled the noisy _ in the engine ;
  he switched on that _ in the summer heat ; the laptop was hot because of the broken _ ;
  the blades of the old _ turned slowly on the ceiling
chest = one thing
body: the doctor/nurse listened to the weak _ and the heart ; the bullet hit the soldier in the broad _ ; the cough hurt in her sore _ ;
  the boxer's punch landed on that _ ; the swimmer had strong arms and that wide _ ; his lungs filled his bare _ with air
box: the pirates/thieves buried the old _ full of gold ; the carpenter put iron locks on the wooden _ ;
  she kept her blankets in the big _ ; the key of that _ was lost ; the lid of the heavy _ would not open ;
  the coins lay at the bottom of the dusty _
organ = one thing
body: the surgeon/doctor removed the diseased _ from the patient ; the liver was the damaged _ ; the donor gave that _ to his brother ;
  the blood flowed through the healthy _ again ; the kidney was the first _ to fail ; the hospital kept the living _ on ice
music: the old/huge _ filled the church with sound ; bach wrote a fugue for this _ ; the priest let her play the small _ at the wedding ;
  the pipes of that _ were made of tin ; the choir sang to the grand _ in the cathedral ;
  he pressed the pedals of the new _ during the hymn
cell = one thing
biology: the scientist/biologist studied the tiny _ under the microscope ; the virus entered the healthy _ through its membrane ;
  the sick _ divided again and again ; the nucleus of that _ held the genes ; the blood sample showed the strange _ ;
  the egg grew from the single _ into an embryo
prison: the guard/warden locked the thief in the dark _ ; the prisoner dug a tunnel under the small _ ;
  the murderer spent ten years in that _ ; two inmates fought in the crowded _ ; the bars of the cold _ were made of iron ;
  the convict wrote to his lawyer from the narrow _
bug = one thing
insect: the spider/frog ate the little _ in the web ; the green _ crawled up the leaf ; the red _ bit her on the arm ;
  the boy kept that _ in a jar with grass ; the bird fed the juicy _ to its chicks ; six thin legs carried the black _ over the stone
software: the programmer/developer fixed the new _ in the code ; the program crashed because of that _ ;
  the update of the app had the serious _ ; the testers found the hidden _ in the software ;
  the hackers used the old _ to enter the server ; the website was down because of the nasty _
wave = one thing
sea: the surfer/swimmer dived under the huge _ ; the boat was lifted by the first _ ; the big _ broke on the rocks ;
  that _ washed the sand castle away ; the storm drove the high _ over the harbour wall ; the foam of the last _ wet the beach
gesture: she greeted/thanked the neighbours with the friendly _ ; the queen gave the crowd that royal _ ;
  he answered her smile with the shy _ ; the child said goodbye with the little _ of her hand ;
  the president left the plane with the usual _ ; the driver let us pass with the quick _
current = one thing
water: the strong/cold _ carried the swimmer out to sea ; the fish/salmon swam against the swift _ ;
  the raft drifted down the river with that _ ; the boat was pulled along by the slow _ ; the warm _ melted the ice in the bay ;
  the canoe turned over in the wild _
electric: the electrician/engineer measured the weak _ in the wire ; the battery gave the steady _ to the lamp ;
  the fuse burnt out because of the strong _ ; that _ heated the copper coil ; the shock from the high _ hurt his hand ;
  the switch cut off the dangerous _ in the circuit
tie = one thing
clothing: he wore the blue/silk _ with a white shirt ; the waiter/banker straightened his black _ ;
  she bought the striped _ for her father's suit ; the knot of that _ was too tight ; the soup dripped on the new _ and the jacket ;
  grandfather hung the old _ in the wardrobe with his coats
draw: the game/match ended in the second _ of the season ; neither team was happy with the dull _ ; the late goal led to that _ ;
  the judges declared the surprising _ between the boxers ; the vote ended in the rare _ of fifty each ;
  both teams got a point for the fair _
court = one place
tennis: the players/girls hit balls across the clay _ ; he served twice on the wet _ ; the net of that _ was torn ;
  she ran across the grass _ with her racket ; the school played basketball on the new _ ; the coach swept the leaves off the old _
law: the judge/lawyer entered the crowded _ with the papers ; the witness lied to the high _ ; the thief was found guilty by that _ ;
  the appeal went to the lower _ last year ; the jury left the silent _ to find a verdict ;
  the prosecutor spoke for an hour in the local _
suit = one thing
clothing: the tailor/designer sewed the grey _ for the groom ; he wore the new _ with a tie ; the sleeves of that _ were too long ;
  the banker ironed his best _ and a shirt ; she took the dirty _ to the cleaner ; the wool of the old _ itched on his legs
law: the lawyer/widow filed the costly _ against the company ; the judge dismissed the old _ for lack of evidence ;
  the firm lost that _ and paid damages ; the neighbours settled the long _ out of court ;
  the patients won the famous _ against the hospital ; the jury heard the second _ about the patent
rock = one thing
stone: the climber/goat slipped on the wet _ ; the waves broke over the black _ ; the ship/boat struck the sharp _ near the coast ;
  a lizard lay in the sun on that _ ; the geologist split the grey _ with a hammer ; the landslide dropped the huge _ on the road
music: the band/guitarist played the loud _ all night ; the radio station loved the old _ of the sixties ;
  the teenagers danced to the hard _ ; the drummer brought that _ to the charts ; the singer mixed jazz with the classic _ ;
  the album was full of the wild _ of electric guitars
key = one thing
lock: she opened the door/gate with the old _ ; the thief copied the small _ to the safe ; he turned the rusty _ in the lock ;
  the janitor hung that _ on a hook ; the landlord gave us the spare _ to the flat ; the car would not start without the new _
music: the pianist/singer changed to the minor _ ; the song was written in the difficult _ ; the choir sang in the wrong _ ;
  the composer chose that _ for the sonata ; the melody moved into the higher _ at the end ; the violins played the tune in the easy _
board = one thing
plank: the carpenter sawed the long/wooden _ in half ; the old _ in the floor creaked ; he nailed that _ over the window ;
  the termites ate through the dry _ ; the painter laid the wide _ across two ladders ; the fence was missing the second _ of oak
committee: the directors/members on the new _ voted for the merger ; the chairman asked the whole _ to resign ;
  the company/school fired the man because of that _ ; the angry _ rejected the budget ; the shareholders elected the old _ again ;
  the minutes of the last _ were read by the secretary
chip = one thing
potato: the girl dipped the salty/crisp _ in the sauce ; the gull stole the hot _ from his plate ; the cook fried the thin _ in oil ;
  that _ tasted of vinegar ; the potato was cut into the last _ ; he ate the greasy _ with the fish
computer: the engineers designed the tiny/new _ for the phone ; the laptop was slow because of the old _ ; the silicon _ stored the data ;
  the factory soldered that _ to the circuit ; the programmer tested the faster _ with her code ;
  the processor was the costly _ in the computer
ball = one thing
toy: the boy/striker kicked the red _ over the fence ; the dog fetched the wet _ from the lake ; the goalkeeper caught the fast _ ;
  the child let that _ roll down the stairs ; the batter hit the new _ into the crowd ; the air leaked out of the rubber _
dance: the prince danced/waltzed with her at the royal _ ; the duchess wore a gown to the grand _ ;
  the orchestra played waltzes at that _ ; the countess invited the officers to the winter _ ; the ladies put on masks for the great _ ;
  the young couple met at the last _ in the palace
horn = one thing
animal: the bull hit the farmer with its sharp/left _ ; the poachers cut the long _ off the rhino ;
  the goat broke its curved _ in a fight ; the deer rubbed that _ against a tree ; the buffalo lowered its thick _ at the lion ;
  the ram scratched its back with the big _
sound: the taxi/truck driver blew the loud _ in the traffic ; the cyclist jumped at the sudden _ of the bus ;
  the jazz band let her play the old _ ; the musician cleaned that _ after the concert ; the ship sounded the deep _ in the fog ;
  the orchestra needed someone for the french _
mole = one thing
animal: the blind/little _ dug tunnels under the lawn ; the gardener set a trap for the black _ ; the young _ ate worms in the soil ;
  the dog pulled that _ out of the earth ; the soft fur of the dead _ was full of dirt ; the hungry _ pushed up earth in the meadow
spy: the agency/ministry arrested the foreign _ for treason ; the secret files were sold by the old _ ;
  the detectives/agents followed that _ to the embassy ; the general feared the hidden _ among his officers ;
  the enemy paid the clever _ for the codes ; the traitor was the second _ in the secret service
shell = one thing
sea: the crab/snail hid in its hard _ ; the girl found the pink _ on the beach ; the turtle drew its head into the thick _ ;
  the oyster had a pearl in that _ ; the gull cracked the empty _ on the rocks ; the nut lay in its brown _ under the tree
bomb: the cannon/gun fired the heavy _ at the fort ; the soldiers ran when the first _ exploded ; the tank was destroyed by that _ ;
  the artillery sent the last _ into the trenches ; the sergeant loaded the new _ into the mortar ;
  the bunker was hit by the second _ in the war
coach = one thing
trainer: the team/striker thanked the strict _ after the win ; the swimmers trained hard for the new _ ;
  the angry _ shouted at the goalkeeper ; the club fired that _ after ten defeats ; the old _ taught the boxer to punch ;
  the runner asked the famous _ for advice
bus: the tourists/passengers got off the old _ at the station ; four horses pulled the royal _ to the palace ;
  the engine of that _ broke down ; the driver parked the new _ behind the hotel ; the luggage was put into the red _ ;
  the tyres of the empty _ needed air
branch = one thing
tree: the owl/monkey sat on the low _ of the oak ; the wind broke the dead _ off the tree ; apples hung from that _ ;
  the children tied a swing to the thick _ ; the beaver dragged the long _ into the river ; snow lay on the bare _ of the pine
office: the bank/company opened the new _ in the city ; the manager of the local _ was promoted ;
  the insurance firm closed that _ last year ; the clerks at the small _ served many customers ;
  the library lent more books at the second _ ; the retailer sent twenty employees to the other _
wing = one part
bird: the hawk/pigeon had hurt its left _ ; the swan hid its head under the white _ ; the feathers of that _ were grey ;
  the butterfly opened the blue _ on a flower ; the cat bit the sparrow in the right _ ; the duckling could not fly with its broken _
building: the hospital/museum opened the new _ for visitors ; the queen slept in the east _ of the palace ;
  the builders put a roof on the south _ ; the fire destroyed that _ of the mansion ;
  the nurses/guards worked in the old _ with forty beds ; the architect drew the west _ of the school
ruler = one thing
king: the old/cruel _ sent his army to war ; the people bowed to the young _ on the throne ; the priests crowned the new _ ;
  the rebels killed that _ in his castle ; the wise _ lowered the taxes of the empire ; the peasants hated the proud _ and his laws
stick: the pupil/student drew a straight line with the wooden _ ; the tailor measured the cloth with the long _ ;
  the centimetres on that _ were worn away ; she put a pencil and the plastic _ in her bag ;
  the angle was drawn with the short _ and a compass ; he marked ten inches with the metal _
"""


@dataclass(frozen=True)
class AmbiguousWord:
    word: str
    neutral: tuple[str, ...]    # nouns that fit the slot in clauses of either sense
    senses: tuple[str, str]     # readable names; the position is the label
    clauses: tuple[tuple[str, ...], tuple[str, ...]]    # by sense


def ambiguous_words() -> tuple[AmbiguousWord, ...]:
    """The lexicon above as a tuple, in its order."""
    lines: list[str] = []
    for line in LEXICON.strip().splitlines():
        if line.startswith("  "):    # a continued line
            lines[-1] += line
        else:
            lines.append(line)
    words = []
    for head, first, second in zip(lines[::3], lines[1::3], lines[2::3], strict=True):
        word, neutral = head.split(" = ")
        names, clauses = zip(*(line.split(": ") for line in (first, second)))
        clauses = tuple(tuple(clause.strip() for clause in text.split(";")) for text in clauses)
        words.append(AmbiguousWord(word, tuple(neutral.split()), tuple(f"{word}/{name}" for name in names), clauses))
    return tuple(words)
