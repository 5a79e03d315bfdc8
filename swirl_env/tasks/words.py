"""Words that the names of generated worlds are put together from.

No two words share a Snowball stem, and none is a key word of a relation, so a search can tell all names apart. A list's
order matters: small worlds use its beginning only. Entities of the last list of a kind are held out in blocks of ten
(see `names.py`), so its length is a multiple of ten.
"""

from __future__ import annotations

FIRST = tuple(
    """
    Isaac Rahul Nina Selma Ruben Leah Leo Zelda Esther Ida Paula Gavin Magda Ramona Dario Regina Judith Stella Tessa
    Victor Salma Luther Otto Carmen Ada Milan Yara Hanna Felix Clara Alma Marco Lena Sven Bella Elena Kira Ivan
    Cyrus Astrid Jana Mabel Walter Rita Cecil Jonas Jasper Moritz Nadia Roman Joel Emil Dalia Maud Martha Ines Wanda
    Enzo Igor Theo Lidia Hector Fiona Quentin Lotte Ulrich Flora Mateo Noah Anton Cora Karim Edgar Lucia Nora Simon
    Lionel Rosa Omar Sofia Hugo Amir Irma Arlo Basil Elsa Viola Rasmus Vera Klara Mira Sergei Silas Tilda Elias
    Petra Lars Tamara Tobias Zora Ursula Rufus Eva Greta Nils Hilda Wilma Valentin Agnes Xavier Bruno Olga Pedro
    Malik Oscar Katja Dora Naomi Olive Gustav
    """.split()
)
"""Given names."""

MIDDLE = tuple(
    """
    Desmond Delia Muriel Melina Tatiana Abel Faye Albin Beatrix Brigit Julian Egon Lorenz Aurel Benno Octavia Ivo
    Gerda Erik Henrik Orson Celeste Alina Arthur Dimitri Mercy Daphne Helga Philippa Ernesto Anselm Andrei Hazel
    Alvin Damian Justus Livia Isolde Laura Filippa Reuben Asta Caspar Olaf Penelope Camilla Donata Marius Berta
    Cornelia Imogen Kaspar Aida Eugene Lydia Edmund Gregor Linnea Kornel Matilda Conrad Rowena Malcolm Gideon
    Johanna Floyd Amelia Saskia Sabina Adrian Ulla Horace Adele Veronika Ludwig Ophelia Roland Eleanor Rafael Fabian
    Edith Nestor Irene Eloise Laszlo Minerva Balthasar Luisa Patrik Maxim Niklas Harriet Leopold Joachim Samson Gwen
    Boris Gisela Ferdinand Freya
    """.split()
)
"""Second given names, used in large worlds."""

LAST = tuple(
    """
    Keller Pellegrin Romero Brandt Trask Delgado Ahlgren Yates Blom Esposito Duarte Quist Ritter Iversen Lambert
    Lindgren Danvers Olsen Varga Hansson Hadley Thorne Lombard Castell Mulder Jarvis Marlowe Prescott Stahl Zimmer
    Eklund Ingram Nyberg Talbot Schiller Kaplan Dahl Underhill Merrick Harker Jansen Kessler Calder Chandra Drummond
    Teller Ferreira Novak Wagner Pickford Donner Bellini Halden Alvarez Engel Winslow Frost Santos Hoffman Moreau
    Sorensen Forsythe Wolff Pavlov Sawyer Adler Becker Rossi Seidel Sandoval Reyes Barlow Fischer Corbin Ramires
    Walsh Berglund Farrow Zeller Okafor Gessler Yilmaz Lund Strand Falk Ortega Larkin Navarro Whitlock Mendoza
    Abbott Ellison Dekker Sutter Bakker Kovacs Osman Tolliver Vickers Vogel Rask Haas Maddox Galloway Ulmer Nordin
    Gruber Kruger Costa Petrov Ibarra Radek Zamora Bogdan Renard Velasco Valdez Holt Garnier Webber
    """.split()
)
"""Family names."""

FIRM_LEAD = tuple(
    """
    Emerald Hidden Copper Vivid Velvet Cosmic Green Modern Granite Neat Morning Pearl Golden Nimble Fair Lunar Red
    Light Bold Warm Blue Keen Lively Crimson Ivory Purple Stout Solid Silent Ebony Gentle Lasting White Radiant
    Swift True Violet Orange Calm Steady Iron First Prime Rapid Cobalt Quiet Dawn Global Brass Jade Rustic Early
    Indigo Crystal Sterling Azure Grand Polar Proud Gilded Evening Lucky Royal Quick Sound Bronze Opal Silver Solar
    Ruby Plain Mellow Bright Fast Scarlet Coral Merry Amber Sapphire Eager Diamond Noble Linen Frosty Honest Marble
    Jolly Sleek Mighty Sunny
    """.split()
)

FIRM_MIDDLE = tuple(
    """
    Swan Arrow Hammer Badger Dolphin Kite Parrot Candle Lion Comet Anchor Plough Clover Condor Hawk Glove Flame
    Goose Sail Banner Drum Stag Whistle Quill Fox Barrel Lynx Helmet Otter Button Horizon Antler Castle Bridge
    Lantern Zebra Cart Fiddle Buckle Pilot Shield Raven Needle Boulder Canvas Beaver Blossom Horseshoe Gate Dragon
    Fern Saddle Puffin Salmon Stork Basket Wheel Panther Magnet Mirror Crane Walrus Tiger Owl Turtle Chimney Leopard
    Thimble Pelican Kettle Bison Lighthouse Rooster Heron Sparrow Ibis Feather Ladder Spindle Moose Falcon Torch
    Eagle Bell Compass Rudder Harp Wolf Beacon Ribbon
    """.split()
)

FIRM_KIND = tuple(
    """
    Foundry Shipping Brewery Textiles Motors Ceramics Optics Insurance Printing Logistics Bakery Mining Chemicals
    Pharmacy Robotics Furniture Airlines Timber Dairy Electric Paper Glassware Jewellers Publishing Software
    Railways Tannery Distillery Telecom Plastics Cement Fisheries Outfitters Engineering Bicycles Toys Tobacco
    Clockworks Pianos Instruments Cosmetics Packaging Refinery Wagons Trading Bank Hotels Carpets Confectionery
    Turbines Batteries Lamps Seeds Perfumes Footwear Knitwear Cutlery Umbrellas Freight Pottery
    """.split()
)

SCHOOL_LEAD = tuple(
    """
    Elm Quince Linden Birch Plum Tulip Tansy Lime Jasmine Verbena Alder Almond Juniper Sunflower Poplar Grape Fennel
    Primrose Blackthorn Chestnut Yew Saffron Coconut Mint Sorrel Sassafras Oleander Persimmon Citron Gardenia Medlar
    Pine Pecan Plane Dahlia Maple Thistle Cypress Pear Gorse Bamboo Palm Hemlock Holly Rhododendron Hyacinth
    Sandalwood Redwood Larch Mango Wisteria Tamarind Cherry Fir Moss Oak Magnolia Walnut Poppy Lemon Olea Catalpa
    Aspen Ivy Myrtle Bramble Sycamore Sequoia Hickory Clove Ginger Pomelo Camellia Mahogany Spruce Willow Eucalyptus
    Barberry Peach Locust Mulberry Yarrow Laurel Apple Acacia Lavender Marigold Rowan Nutmeg Lilac Lotus Hornbeam
    Pepper Daffodil Buckeye Bay Cinnamon Beech Mimosa Orchid Laburnum Ash Clematis Sage Apricot Thyme Anise Sumac
    Dogwood Cedar Heather Vanilla Elder Rosemary Ginkgo Hawthorn Peony Fig Banyan Wattle Foxglove Cassia Teak
    """.split()
)

SCHOOL_MIDDLE = tuple(
    """
    Mendel Gauss Noether Bede Euclid Dalton Milton Newton Humboldt Bernoulli Cervantes Lister Bruckner Franklin
    Tesla Byron Paracelsus Pliny Sophocles Rousseau Keats Hegel Ptolemy Tycho Erasmus Kant Dante Avicenna Pindar
    Plato Hooke Pasteur Balzac Darwin Montaigne Archimedes Boyle Pascal Tacitus Verdi Descartes Volta Kepler
    Boethius Ampere Rumford Ohm Bacon Ambrose Laplace Halley Socrates Faraday Aquinas Dickens Virgil Huygens Tolstoy
    Tagore Galois Emerson Wordsworth Zeno Fermat Fibonacci Herodotus Hippocrates Hypatia Aristotle Euler Harvey
    Einstein Curie Cicero Seneca Chaucer Lovelace Turing Pythagoras Plutarch Cassini Ovid Solon Calvin Herschel
    Poincare Homer Sappho Copernicus Watt Confucius Schubert Mozart Strabo Pushkin Bohr Ockham Xenophon Cavendish
    Brahe Lavoisier Vitruvius Becket Liszt Thales Mendeleev Ibsen Hilbert Galileo Goethe Linnaeus Spinoza Ramanujan
    Diderot Epicurus Leibniz Lagrange Babbage Cantor Voltaire
    """.split()
)

SCHOOL_KIND = tuple(
    """
    Academy College Institute Lyceum Seminary Conservatory Polytechnic University Gymnasium Athenaeum Convent
    Kindergarten Nursery Faculty Studio Cloister Hall Priory Studium Lodge
    """.split()
)

CITY_LEAD = tuple(
    """
    Port Fort Lake Mount Upper Lower Great Little Old Nether Glen Stone Saint Cape High Low Long Abbots Kings Queens
    """.split()
)

CITY_MIDDLE = tuple(
    """
    Ristel Sturnis Lestar Durus Nunin Havos Kristus Wastos Bindin Baros Thondor Skirar Wilmar Cendel Bremin Skolen
    Fenon Curor Skavar Polman Shelmel Pemos Hostel Trindin Dilar Bunos Stilus Gerel Werar Zurnos Zelin Krindel
    Drustel Rolmar Hanon Nilor Bralos Felel Krandin Kelmen Flilmar Rasten Korar Dreman Henen Fornos Zamar Vinen
    Brastor Krestos Serin Ronus Krendel Prilmel Droros Tindus Drunos Tulor Bristos Dondos Tremor Guvos Trarnor
    Brumor Zundis Granon Praror Flimor Nirel Gaven Proros Krondar Rolen Himar Skerus Shurnon Jurnin Shendel Cevar
    Brunin Rarnan Gamor Jenon Pundos Kelis Mundis Zanon Ceros Sanel Jamon Sulor Terel Trernen Vulmis Brarnon Banis
    Nolar Groran Morel Stoston Saros Selos Runus Grolmon Tolman Hurar Jernan Dolen Kanan Flisten Goron Liron Skemen
    Skilmus Varin Thernel Grernos Larnor Laren Histen Bronel Worar Graven Hunan Pevor Grenden Zomen Prestor Skulus
    Pronan Stimin Flulmel Shavan Nindin Pimen Kistis Trilis Kroror Noror Lelmel Grilel Dumis Minus Pandel Cirnel
    Prustis Thandan Divor Cuvos Zestan
    """.split()
)

CITY_ROOT = tuple(
    """
    Kinport Hudholm Prorhaven Merwick Rerkdale Pomholm Skorkbury Brorwick Prerwick Zunsbury Dadhaven Consholm
    Drolstead Wonsford Skedholm Skunswick Silford Krindale Premford Florkford Stirkwick Kromwick Karkdale Drimton
    Tolbdale Donsdale Zilton Stamholm Hamwick Thanwick Sonstead Lilwick Koldale Krundale Gidford Lumdale Lilbury
    Hiddale Kunholm Cimdale Brandale Jelbdale Lalholm Thirkbury Porford Kolbford Zanston Holbton Mirford Firton
    Larbury Gemstead Wembridge Dambridge Nedhaven Promton Kadstead Bundale Grimholm Linbridge Sinhaven Grelwick
    Drurholm Hidton Brinbury Hemholm Vedholm Pumford Jorkhaven Brunhaven Bromton Sunwick Virkford Brurkford
    Flonstead Kanstead Sharkport Ranport Lalbstead Fansholm Gidbridge Fimhaven Stumford Shorkwick Culwick Girkport
    Kremford Dridbury Fumwick Grilholm Zumford Shunstead Prinsbury Flirholm Kirkford Binsford Goldale Cirton
    Nolbbury Flarkdale Timholm Jidton Walstead Wirkholm Gerkholm Zudford Gumwick Dralport Nansbury Hulbdale
    Krirkbury Fardale Fladbury Morport Golton Gamhaven Dronwick Winbridge Larkport Lamdale Samford Somholm Censstead
    Thurton Skolford Skerstead Trelport Lerkford Selton Jensport Bredwick Bomholm Kurport Lonswick Gilbholm Serbury
    Grerkdale Codstead Zalbford Sadton
    """.split()
)

REGION_LEAD = tuple(
    """
    Northern Southern Eastern Western Central Inner Outer Coastal Highland Lowland
    """.split()
)

REGION_MIDDLE = tuple(
    """
    Withoria Cullella Navine Trarora Tevine Bethine Lanade Wenella Thethade Wiluna Florine Skavade Pororia Suvino
    Kethuna Sholade Hunoria Folade Cithuna Nunoria Stethora Surella Jonuna Flevoria Feruna Fleluna Skeluna Wozuna
    Giroria Skanade Panino Bathella Reruna Vuluna Trerella Stivino Mezade Shororia Halella Pruzora Brulava Shothuna
    Falino Bralloria Firade Dithoria Fizoria Balella Droruna Trathuna Skuthella Rillade Bollava Wothine Tezoria
    Maline Tazade Tazoria Fluthora Prulluna Krothino Zuroria Genava Renade Thizuna Vuvine Tathuna Thothella Sorine
    Stunoria Cizoria Karine Prevoria Kurella Lirora Geluna Solade Tanava Thavade Hazella Maroria Sunine Konora
    Kunine Wolava Brelella Baline Kruzora Shovuna Krethoria Zellino Wethade Gruthava Mevino Rerella Kraline Narora
    Thuvino Grilline Fovoria Zuthuna Corade Tinino Trinava Valade Diruna Baruna Davora Jurava Kinuna Hivine Monoria
    Skinora Javade Krevine Skillino Thivoria Futhuna Lununa Bazora
    """.split()
)

REGION_ROOT = tuple(
    """
    Nurdmoor Wosmoor Corshire Pirdland Gorland Grosmore Halland Grordgau Muvshire Vovwold Hovmoor Surdshire
    Thurdland Melfell Nelmoor Junfell Balmoor Skinmore Flovshire Winmoor Krinshire Serdmark Wormoor Jardfell
    Krulfell Nosgau Bulfell Tordshire Krovmoor Skangau Hurdmore Flardmore Krolland Tholmark Lordmark Wivgau Prulwold
    Gruvland Rurgau Stirgau Dusmoor Fismore Jovmoor Zevgau Brilwold Gravfell Thirwold Stavmark Thovland Mivshire
    Busshire Skasland Novland Birdmoor Zunshire Krurmoor Rilmoor Vismark Winfell Novmark Rorwold Vonshire Skivfell
    Normore Zenwold Flordmoor Flirdgau Rershire Shunmore Wungau Flolfell Firdland Bronmark Cosfell Kulmore Zevshire
    Lorshire Lesland Pardmore Purmoor Darmore Kerdwold Wavmore Grulgau Menland Tharmore Jivmore Thasmark Waswold
    Drurdmark Tovland Milland Wuvwold Kruvgau Granmoor Julfell Shilwold Sulgau Flelshire Rulmore Folland Jinwold
    Skelshire Honwold Hulwold Kolshire Wonland Felmoor Starmark Malwold Prilmoor Fulgau Vonmoor Nermark Verdmark
    Grurshire Hiswold Zolland Tevfell Stisfell
    """.split()
)
