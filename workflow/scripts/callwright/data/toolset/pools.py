"""Values that every toolset may use without listing them: places, names, days, times, words and codes."""

from typing import Any

from callwright.data.toolset import values

_FIRST_NAMES = (
    "Anna Ben Carla David Elena Felix Grace Hassan Ines Jonas Karim Laura Marco Nadia Oliver Priya Quentin Rosa Samuel "
    "Tara Umar Vera William Yuki Zoe Amara Bruno Chloe Diego Emma Fatima George Hugo Isabel Jack Kenji Leila Mateo "
    "Nora Owen Aisha Boris Clara Dmitri Esther Farid Gina Henrik Ivan Jasmin Kofi Lucia Mei Noah Olga Pablo Ravi "
    "Sofia Theo Valentina"
)
FIRST_NAMES = _FIRST_NAMES.split()

# By name, as a toolset file writes them (`callwright.data.toolset.values`).
SPECS: dict[str, Any] = {
    "city": [
        "London", "Paris", "Berlin", "Madrid", "Rome", "Lisbon", "Vienna", "Prague", "Warsaw", "Budapest", "Athens",
        "Dublin", "Oslo", "Stockholm", "Helsinki", "Copenhagen", "Amsterdam", "Brussels", "Zurich", "Geneva", "Milan",
        "Naples", "Barcelona", "Seville", "Porto", "Hamburg", "Munich", "Cologne", "Krakow", "Riga", "Tallinn",
        "Vilnius", "Istanbul", "Cairo", "Nairobi", "Lagos", "Accra", "Cape Town", "Dubai", "Mumbai", "Delhi",
        "Bangkok", "Singapore", "Jakarta", "Manila", "Hanoi", "Seoul", "Tokyo", "Osaka", "Kyoto", "Beijing",
        "Shanghai", "Sydney", "Melbourne", "Auckland", "Toronto", "Montreal", "Vancouver", "Boston", "New York",
        "Chicago", "Denver", "Seattle", "Portland", "San Francisco", "Los Angeles", "Austin", "Miami", "Atlanta",
        "Mexico City", "Bogota", "Lima", "Quito", "Santiago", "Buenos Aires", "São Paulo",
    ],
    "country": [
        "France", "Japan", "Brazil", "Kenya", "Norway", "Italy", "Canada", "Vietnam", "Mexico", "Egypt", "Portugal",
        "India", "Chile", "Greece", "Iceland", "Morocco", "Thailand", "New Zealand", "Peru", "Poland", "Turkey",
        "Ireland", "South Korea", "Austria", "Ghana", "Spain", "Finland", "Argentina", "Indonesia", "Switzerland",
    ],
    "first_name": FIRST_NAMES,
    "last_name": [
        "Smith", "Garcia", "Müller", "Rossi", "Novak", "Kowalski", "Andersen", "Okafor", "Patel", "Tanaka", "Nguyen",
        "Silva", "Haddad", "Murphy", "Dubois", "Jansen", "Costa", "Brown", "Keller", "Walsh", "Berg", "Moreau",
    ],
    "person": {"join": "{first_name} {last_name}"},
    "contact": FIRST_NAMES,
    "email_name": ["anna", "ben.lee", "office", "nina.k", "tom", "maria.lopez", "info", "jobs", "sales", "j.novak"],
    "email_host": ["example.com", "example.org", "shopmail.com", "greenschool.edu", "workmail.com", "bikeworld.net"],
    "email": {"join": "{email_name}@{email_host}"},
    "phone": {"pattern": "555-01##"},
    "url": ["example.com/news", "example.org/blog", "example.com/shop", "example.net/docs", "example.org/events"],
    "date": {"date": {"from": "2026-01-01", "to": "2027-12-31"}},
    "date_no_year": {"date": {"from": "2026-01-01", "to": "2026-12-31", "year": False}},
    "day": {"day": {"on": False}},
    "on_day": {"day": {"on": True}},
    "weekday": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
    "month": ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
              "November", "December"],
    "time": {"time": {"from": "06:00", "to": "22:00", "step": 15}},
    "datetime": {"datetime": {"from": "2026-01-01", "to": "2027-12-31"}},
    "minutes": {"integer": {"from": 5, "to": 120, "step": 5}},
    "duration": {"duration": {"from": 5, "to": 180, "step": 5}},
    "count": {"integer": {"from": 2, "to": 12, "words": True}},
    "percent": {"integer": {"from": 5, "to": 100, "step": 5}},
    "amount": {"number": {"from": 5, "to": 950, "decimals": 2}},
    "currency": ["USD", "EUR", "GBP", "JPY", "CHF", "CAD", "AUD", "SEK", "NOK", "DKK", "INR", "PLN", "CZK", "MXN",
                 "BRL", "SGD", "NZD", "ZAR", "KRW", "TRY"],
    "language": ["Spanish", "French", "German", "Italian", "Portuguese", "Japanese", "Korean", "Arabic", "Hindi",
                 "Swahili", "Dutch", "Polish", "Turkish", "Greek", "Swedish", "Vietnamese", "Finnish", "Czech"],
    "color": ["red", "blue", "green", "yellow", "orange", "purple", "pink", "white", "turquoise", "gold"],
    "room": ["kitchen", "bedroom", "living room", "bathroom", "hallway", "office", "garage", "dining room", "nursery",
             "basement", "guest room", "laundry room", "attic", "study", "playroom"],
    "product": ["running shoes", "office chair", "winter jacket", "electric kettle", "wireless headphones", "yoga mat",
                "desk lamp", "backpack", "coffee grinder", "rain boots", "tent", "bike helmet", "sunglasses", "toaster",
                "board game"],
    "grocery": ["milk", "bread", "eggs", "rice", "butter", "coffee", "tea", "apples", "bananas", "onions", "tomatoes",
                "cheese", "pasta", "olive oil", "flour", "sugar", "salt", "yogurt", "spinach", "carrots", "potatoes",
                "chicken", "lemons", "garlic", "oat milk"],
    "topic": ["politics", "technology", "science", "climate", "business", "football", "health", "space", "film",
              "education", "energy", "art", "travel", "electric cars"],
    "title": ["weekly report", "garden party", "holiday plans", "book club", "team lunch", "spring cleaning",
              "budget review", "project kickoff", "summer concert", "reading list"],
    "message": ["I'm running late", "dinner is ready", "the meeting has moved to Friday", "I just landed",
                "practice is canceled", "the keys are under the mat", "I found your wallet", "we're out of milk",
                "the package has arrived", "I'll bring dessert", "the train is delayed", "I left my phone at home",
                "the car is fixed", "we need more chairs", "I got the tickets", "the doctor says all is fine"],
    "file": ["report.pdf", "notes.txt", "budget.xlsx", "photo1.jpg", "thesis.docx", "plan.pptx", "data.csv",
             "resume.pdf", "speech.docx", "letter.docx", "map.png", "todo.md", "invoice_03.pdf", "draft.txt",
             "menu.pdf"],
    "code": {"pattern": "@@-####"},
}  # fmt: skip

# Talk that no tool serves, in any toolset. Each answer begins with "I", as the refusal and the question back do:
# whether to call is decided by the answer's first token, and many first tokens share out what speaks against a call.
CHIT_CHAT = [
    ("Thanks, that's all for now!", "I'm glad I could help."),
    ("Thank you so much for your help.", "I'm glad I could help."),
    ("Great job!", "I'm happy to hear that."),
    ("Well done, that worked.", "I'm happy to hear that."),
    ("Hello there", "I'm here. What can I do for you?"),
    ("Hi, how are you doing?", "I'm fine, thank you. What can I do for you?"),
    ("Good morning!", "I wish you a good morning. What can I do for you?"),
    ("Good evening, are you there?", "I'm here. What can I do for you?"),
    ("Hey, anybody home?", "I'm here. What can I do for you?"),
    ("Never mind, I found it myself.", "I'm glad it turned up."),
    ("Forget it, it's not important.", "I understand. Let me know if you need anything."),
    ("Sorry, I pressed the wrong button.", "I understand. Let me know if you need anything."),
    ("Oops, that was meant for someone else.", "I understand. Let me know if you need anything."),
    ("What's your name?", "I'm your assistant."),
    ("Are you a real person?", "I'm an assistant, not a person."),
    ("Am I talking to a robot?", "I'm an assistant, not a person."),
    ("Do you ever sleep?", "I'm always here."),
    ("Do you like music?", "I'm an assistant, so I have no taste of my own."),
    ("What can you do?", "I can use the tools that I have. What do you need?"),
    ("I'm so tired today.", "I'm sorry to hear that."),
    ("I had a really bad day.", "I'm sorry to hear that."),
    ("My head hurts and I just want to complain.", "I'm sorry to hear that."),
    ("I passed my exam!", "I'm happy for you, well done!"),
    ("We just got engaged!", "I'm happy for you both!"),
    ("I got the job!", "I'm happy for you, well done!"),
    ("Today is my birthday.", "I wish you a happy birthday!"),
    ("Good night!", "I wish you a good night."),
    ("Bye, see you tomorrow.", "I'm here when you need me."),
    ("You're funny.", "I'm glad you think so."),
    ("I love talking to you.", "I'm glad you think so."),
    ("Just testing, one two three.", "I hear you. What can I do for you?"),
    ("Is this thing on?", "I hear you. What can I do for you?"),
    ("Ha, that's a good one.", "I'm glad you think so."),
    ("Nothing else, thanks.", "I'm glad I could help."),
    ("Okay, that makes sense.", "I'm glad I could help."),
    ("Give me a second to think.", "I'm here when you need me."),
]


def builtin() -> dict[str, values.Pool]:
    """The pools of SPECS by name."""
    pools: dict[str, values.Pool] = {}
    for name, spec in SPECS.items():
        pools[name] = values.pool(name, spec, pools)
    return pools
