"""Words that descriptions and names of tools begin with, as far as phrasings are made of them."""

_VERBS = (
    "accept add adjust admit announce answer apply approve archive arrange ask assess assign bake bill book borrow "
    "brew broadcast build buy calculate call cancel change charge check choose clean clone close collect compare "
    "complete compress compute confirm convert cook copy count create crop decline decrease define delete deliver "
    "deploy deposit describe detect diagnose disable discharge dispatch donate download edit email enable end enroll "
    "estimate exchange explain export extend extract fetch fill find fix flag forward generate get give groom hand "
    "hire import increase inform insert inspect invite invoice issue join lend list load lock log look make mark "
    "measure merge message monitor move mute notify offer open order pair pause pay pick pin plan play post predict "
    "prepare prescribe print publish pull purchase push put query quote rate read rebook reboot record refill refund "
    "register reject release remind remove rename renew rent reopen repair replace reply report request reschedule "
    "reserve reset resize restart restock restore resume retrieve return review revoke ring rotate run save say scan "
    "schedule search select sell send set share ship shorten show skip sort split start stop store submit subscribe "
    "suggest summarize switch sync take teach tell test toggle track trade transfer translate treat turn undo unlock "
    "unpin unsubscribe update upgrade upload vaccinate validate verify view wake water withdraw write"
)
VERBS = frozenset(_VERBS.split())
# What is left out is not asked for: "bike, R-17" is no request to delete it.
_CHANGES = (
    "archive cancel close decline delete disable discharge end lock mute pause reject release remove reset restart "
    "return revoke skip stop undo unlock unpin unsubscribe withdraw"
)
CHANGES = frozenset(_CHANGES.split())
# Before an article these are no order: "For the whole day", "With a value".
_NO_ORDER = (
    "about after all any as at before both by each every for from if in into like of on only per some that these this "
    "those to under until via when where whether which while with without"
)
NO_ORDER = frozenset(_NO_ORDER.split())
