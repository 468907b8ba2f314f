"""What voices of speech synthesizers are given to say: common English words, and a few words of other languages."""

DIGITS = "zero one two three four five six seven eight nine".split()

# What people say to machines.
COMMANDS = """
yes no stop go up down left right on off start pause play next previous back forward louder quieter volume mute help
cancel open close lock unlock call answer hang turn light lights lamp heat cool fan music radio alarm timer clock
weather news time today tomorrow kitchen bedroom bathroom garage hello goodbye please thanks okay repeat again faster
slower follow learn backward wake sleep send read message search find save delete take picture camera home menu select
enter
""".split()

COMMON_WORDS = """
about above accept across act action add afraid after afternoon age ago agree air all allow almost alone along already
also always among anger animal another any anyone apart appear apple area arm army around arrive art ask attack aunt
autumn away baby bad bag ball banana band bank bar base basket bath beach bean bear beautiful because become bed bee
beer before begin behind believe bell belong below bench beside best better between big bird birth bit bite black
blanket blind block blood blow blue board boat body bone book boot border born borrow both bottle bottom bowl box boy
branch brave bread break breakfast breathe brick bridge bright bring broken brother brown brush bucket build burn bus
bush business busy butter button buy cake came can candle cap captain car card care careful carpet carrot carry case
castle cat catch cause ceiling center century certain chain chair chance change cheap cheese cherry chest chicken chief
child children choice choose church circle city class clean clear clever climb cloth cloud club coast coat coffee coin
cold collect college color comb come common compare complete computer condition consider contain continue control cook
copper copy corn corner correct cost cotton cough could count country couple courage course cousin cover cow crazy
cream create crime cross crowd crown cry cup cupboard curious curtain curve cut dance danger dark date daughter day
dead deal dear death decide deep degree depend desert desk destroy develop die different difficult dig dinner direct
dirty discover dish distance divide doctor dog dollar door double doubt dozen draw dream dress drink drive drop dry
duck dust duty each eagle early earn earth east easy eat edge education egg either electric elephant else empty end
enemy engine enjoy enough entire equal escape even evening event ever every exact example except excite exercise expect
expensive experience explain eye face fact fail fair fall false family famous far farm farmer fast fat father fault
fear feather feed feel fellow fence fever few field fight figure fill film final finger finish fire firm first fish fit
fix flag flame flat floor flour flow flower fly fold food fool foot football force foreign forest forget forgive fork
form found fox frame free freeze fresh friend frog from front fruit full fun funny future game garden gate gather
gentle get ghost giant gift girl give glad glass glove goat gold good goose govern grain grandmother grape grass gray
great green ground group grow guard guess guest guide guitar gun habit hair half hall hammer hand handle happen happy
harbor hard hat hate have head healthy hear heart heaven heavy height hen here hide high hill history hit hobby hold
hole holiday honest honey hope horse hospital hot hotel hour house how huge human hundred hungry hunt hurry hurt
husband ice idea imagine important inch include increase industry insect inside instead invite iron island jacket jar
jaw jeans jelly job join joke journey joy judge juice jump jungle just keep kettle key kick kill kind king kiss knee
kneel knife knock knot know ladder lady lake land language large last late laugh law lazy lead leaf lean leather leave
leg lemon lend length less lesson let letter level library lie life lift like line lion lip list listen little live
loaf lonely long look loose lose loud love low luck lunch machine mad magic mail main make man many map march mark
market marry master match matter may meal mean measure meat medicine meet melon melt member memory mend metal middle
might mile milk million mind mine minute mirror miss mistake mix model modern moment money monkey month moon more
morning most mother motor mountain mouse mouth move much mud muscle museum must nail name narrow nation nature near
neat neck need needle neighbor neither nephew nest net never new nice night nobody nod noise none north nose note
nothing notice now number nurse ocean office officer often oil old onion only opinion opposite orange order other ought
our outside oven over owe own oxygen pack page pain paint pair pale pan paper parent park part partner party pass past
path pay peace pear pen pencil people pepper perfect perhaps period person pet phone piano pick piece pig pillow pilot
pin pink pipe pity place plain plan plane planet plant plate pleasant plenty pocket poem point poison police polite
pool poor popular position possible post pot potato pour power practice praise prepare present president press pretty
prevent price pride prince print prison private prize problem produce program promise proof proper protect proud prove
public pull pump punish pupil puppy pure purple purpose push put queen question quick quiet quite rabbit race railway
rain rainbow raise rare rather raw reach ready real reason receive record red refuse region regret relative remember
rent report rescue respect rest result return rice rich ride ring ripe rise river road roar rob rock roll roof room
root rope rose rough round row royal rub rubber rude ruin rule run rush sad safe sail salad salt same sand sandwich
satisfy sauce say scale scare school science scissors score scratch sea season seat second secret see seed seem sell
sense sentence separate serious serve set settle several shade shadow shake shall shape share sharp she sheep sheet
shelf shell shine ship shirt shock shoe shoot shop shore short should shoulder shout show shower shut sick side sign
silence silver similar simple since sing single sink sister sit situation size skill skin skirt sky slice slide slow
small smell smile smoke smooth snail snake snow soap soccer social sock soft soil soldier solid some son song soon sore
sorry sort soul sound soup south space spade speak special speed spell spend spider spin spoon sport spot spread spring
square stage stair stamp stand star state station stay steal steam steel steep step stick still stomach stone store
storm story stove straight strange stream street strength stretch strike string strong student study such sudden suffer
sugar suggest suit summer sun supper supply support suppose sure surface surprise swallow sweep sweet swim sword table
tail tall taste taxi tea teach team tear teeth tell temple ten tennis tent test thank that theater them then there
these thick thief thin thing think third thirsty this thousand thread threat throat through throw thumb thunder ticket
tie tiger tight till tin tiny tire title toast tobacco together tomato tongue tonight tool tooth top total touch towel
tower town toy track trade traffic train travel treasure tree trick trip trouble truck true trunk trust truth try tube
tune turtle twice twist type ugly umbrella uncle under understand uniform union unit until upper use useful usual
valley value van vase vegetable very vessel view village violin visit voice vote wait walk wall want war warm warn wash
waste watch water wave way weak wealth wear wedding week weigh welcome well west wet what wheel when where which while
whisper whistle white who whole why wide wife wild will win wind window wine wing winter wire wise wish with witness
wolf woman wonder wood wool word work world worm worry worth would wound wrap write wrong yard year yellow yesterday
yet young your zebra zoo
""".split()

# Yes, no, stop, go, up, down, left, right, on, off, and a few more, by language.
WORDS_BY_LANGUAGE = {
    language: words.split()
    for language, words in {
        "af": "ja nee stop gaan op af links regs aan uit dankie water huis hond kat môre vandag lig deur boek",
        "ar": "نعم لا توقف اذهب فوق تحت يسار يمين تشغيل إيقاف افتح أغلق شكرا مرحبا ماء بيت كتاب اليوم غدا صوت",
        "bg": "да не стоп върви горе долу ляво дясно включи изключи благодаря вода къща куче котка днес утре книга",
        "ca": "sí no para endavant amunt avall esquerra dreta encès apagat gràcies aigua casa gos gat avui demà llum "
        "porta",
        "cs": "ano ne stop jdi nahoru dolů vlevo vpravo zapnout vypnout děkuji voda dům pes kočka dnes zítra světlo "
        "dveře",
        "cy": "ie na stopio mynd fyny lawr chwith de diolch dŵr ty ci cath heddiw yfory golau drws llyfr bore nos",
        "da": "ja nej stop gå op ned venstre højre tænd sluk tak vand hus hund kat i dag morgen lys dør bog",
        "de": "ja nein halt los hoch runter links rechts an aus danke bitte wasser haus hund katze heute morgen licht "
        "tür buch musik lauter leiser weiter zurück hilfe wetter straße vogel baum schlüssel fenster zwölf",
        "el": "ναι όχι σταμάτα πήγαινε πάνω κάτω αριστερά δεξιά ευχαριστώ νερό σπίτι σκύλος γάτα σήμερα αύριο φως "
        "πόρτα βιβλίο",
        "eo": "jes ne haltu iru supren malsupren maldekstren dekstren dankon akvo domo hundo kato hodiaŭ morgaŭ lumo "
        "pordo libro",
        "es": "sí no para vamos arriba abajo izquierda derecha encender apagar gracias agua casa perro gato hoy "
        "mañana luz puerta libro música volumen ayuda tiempo calle pájaro árbol llave ventana siguiente",
        "et": "jah ei peatu mine üles alla vasakule paremale aitäh vesi maja koer kass täna homme valgus uks raamat",
        "eu": "bai ez gelditu joan gora behera ezker eskuin eskerrik ura etxea txakurra katua gaur bihar argia atea "
        "liburua",
        "fa": "بله نه ایست برو بالا پایین چپ راست روشن خاموش ممنون آب خانه سگ گربه امروز فردا کتاب",
        "fi": "kyllä ei seis mene ylös alas vasen oikea päälle pois kiitos vesi talo koira kissa tänään huomenna valo "
        "ovi kirja",
        "fr": "oui non stop allez haut bas gauche droite allumer éteindre merci bonjour eau maison chien chat demain "
        "lumière porte livre musique volume aide temps rue oiseau arbre clé fenêtre suivant",
        "hi": "हाँ नहीं रुको जाओ ऊपर नीचे बाएँ दाएँ चालू बंद धन्यवाद पानी घर कुत्ता बिल्ली आज कल किताब",
        "hr": "da ne stani idi gore dolje lijevo desno upali ugasi hvala voda kuća pas mačka danas sutra svjetlo "
        "vrata knjiga",
        "hu": "igen nem állj menj fel le bal jobb be ki köszönöm víz ház kutya macska ma holnap fény ajtó könyv",
        "id": "ya tidak berhenti jalan atas bawah kiri kanan hidup mati terima air rumah anjing kucing hari besok "
        "lampu pintu buku",
        "is": "já nei stopp fara upp niður vinstri hægri takk vatn hús hundur köttur dag morgun ljós dyr bók",
        "it": "sì no ferma vai su giù sinistra destra accendi spegni grazie acqua casa cane gatto oggi domani luce "
        "porta libro musica volume aiuto tempo strada uccello albero chiave finestra avanti",
        "ja": "はい いいえ とまれ すすめ うえ した ひだり みぎ つける けす ありがとう みず いえ いぬ ねこ "
        "きょう あした ほん おと",
        "ko": "예 아니요 정지 가 위 아래 왼쪽 오른쪽 켜 꺼 감사합니다 물 집 개 고양이 오늘 내일 책 소리",
        "la": "ita non sta ite sursum deorsum sinistra dextra gratias aqua domus canis feles hodie cras lux porta "
        "liber",
        "lt": "taip ne stok eik aukštyn žemyn kairėn dešinėn ačiū vanduo namas šuo katė šiandien rytoj šviesa durys "
        "knyga",
        "lv": "jā nē stop ej augšā lejā kreisi labi paldies ūdens māja suns kaķis šodien rīt gaisma durvis grāmata",
        "ms": "ya tidak berhenti pergi naik turun kiri kanan buka tutup terima air rumah anjing kucing esok lampu "
        "pintu buku",
        "nb": "ja nei stopp gå opp ned venstre høyre på av takk vann hus hund katt morgen lys dør bok",
        "nl": "ja nee stop ga omhoog omlaag links rechts aan uit dank water huis hond kat vandaag morgen licht deur "
        "boek muziek harder zachter volgende terug hulp weer straat vogel boom sleutel raam",
        "pl": "tak nie stop idź góra dół lewo prawo włącz wyłącz dziękuję woda dom pies kot dzisiaj jutro światło "
        "drzwi książka",
        "pt": "sim não pare vá cima baixo esquerda direita ligar desligar obrigado água casa cão gato hoje amanhã luz "
        "porta livro música volume ajuda tempo rua pássaro árvore chave janela seguinte",
        "ro": "da nu stop mergi sus jos stânga dreapta pornit oprit mulțumesc apă casă câine pisică astăzi mâine "
        "lumină ușă carte",
        "ru": "да нет стоп иди вверх вниз влево вправо включи выключи спасибо вода дом собака кошка сегодня завтра "
        "свет дверь книга музыка громче тише дальше назад помощь погода улица птица дерево ключ окно",
        "sk": "áno nie stoj choď hore dole vľavo vpravo zapnúť vypnúť ďakujem voda dom pes mačka dnes zajtra svetlo "
        "dvere kniha",
        "sl": "da ne stoj pojdi gor dol levo desno prižgi ugasni hvala voda hiša pes mačka danes jutri luč vrata "
        "knjiga",
        "sq": "po jo ndalo shko lart poshtë majtas djathtas faleminderit ujë shtëpi qen mace sot nesër dritë derë "
        "libër",
        "sr": "да не стани иди горе доле лево десно укључи искључи хвала вода кућа пас мачка данас сутра светло врата "
        "књига",
        "sv": "ja nej stopp gå upp ner vänster höger på av tack vatten hus hund katt idag imorgon ljus dörr bok",
        "sw": "ndiyo hapana simama nenda juu chini kushoto kulia washa zima asante maji nyumba mbwa paka leo kesho "
        "taa mlango kitabu",
        "tr": "evet hayır dur git yukarı aşağı sol sağ aç kapat teşekkürler su ev köpek kedi bugün yarın ışık kapı "
        "kitap",
        "uk": "так ні стоп іди вгору вниз ліворуч праворуч увімкни вимкни дякую вода дім собака кішка сьогодні завтра "
        "світло книга",
        "vi": "có không dừng đi lên xuống trái phải bật tắt cảm nước nhà chó mèo hôm mai đèn cửa sách",
    }.items()
}
