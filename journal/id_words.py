"""The two long forms of a job id (RFC 19): six words of mnemonicode, and digits of base 576 that are emoji.

Decides how these are written and read. Its own module because few ids are written so, and the word list takes its time.
"""

from __future__ import annotations

from types import ModuleType

from ..kvs.errors import Rejected

# The single-character emoji of Unicode's Emoji 0.6 beyond the basic plane, in the order in which Unicode lists them. The
# order is part of the format: an id written yesterday must be read the same tomorrow.
_EMOJI = (
    "😃😄😁😆😅😂😉😊😍😘😚😋😜😝😏😒😌😔😪😷😵😲😳😨😰😥😢😭😱😖😣😞😓😩😫😤😡😠👿💀💩👹👺👻👽👾😺😸"
    "😹😻😼😽🙀😿😾🙈🙉🙊💌💘💝💖💗💓💞💕💟💔💛💚💙💜💋💯💢💥💫💦💨💬💤👋👌👈👉👆👇👍👎👊👏🙌👐🙏💅💪"
    "👂👃👀👅👄👶👦👧👱👨👩👴👵🙍🙎🙅🙆💁🙋🙇👮💂👷👸👳👲👰👼🎅💆💇🚶🏃💃👯🏂🏄🏊🛀👫💏💑👪👤👣🐵🐒🐶"
    "🐩🐺🐱🐯🐴🐎🐮🐷🐗🐽🐑🐫🐘🐭🐹🐰🐻🐨🐼🐾🐔🐣🐤🐥🐦🐧🐸🐢🐍🐲🐳🐬🐟🐠🐡🐙🐚🐌🐛🐜🐝🐞💐🌸💮🌹🌺🌻"
    "🌼🌷🌱🌴🌵🌾🌿🍀🍁🍂🍃🍄🍇🍈🍉🍊🍌🍍🍎🍏🍑🍒🍓🍅🍆🌽🌰🍞🍖🍗🍔🍟🍕🍳🍲🍱🍘🍙🍚🍛🍜🍝🍠🍢🍣🍤🍥🍡"
    "🍦🍧🍨🍩🍪🎂🍰🍫🍬🍭🍮🍯🍵🍶🍷🍸🍹🍺🍻🍴🔪🌏🗾🌋🗻🏠🏡🏢🏣🏥🏦🏨🏩🏪🏫🏬🏭🏯🏰💒🗼🗽🌁🌃🌄🌅🌆🌇"
    "🌉🎠🎡🎢💈🎪🚃🚄🚅🚇🚉🚌🚑🚒🚓🚕🚗🚙🚚🚲🚏🚨🚥🚧🚤🚢💺🚀🕛🕐🕑🕒🕓🕔🕕🕖🕗🕘🕙🕚🌑🌓🌔🌕🌙🌛🌟🌠"
    "🌌🌀🌈🌂🔥💧🌊🎃🎄🎆🎇🎈🎉🎊🎋🎍🎎🎏🎐🎑🎀🎁🎫🏆🏀🏈🎾🎳🎣🎽🎿🎯🔫🎱🔮🎮🎰🎲🃏🀄🎴🎭🎨👓👔👕👖👗"
    "👘👙👚👛👜👝🎒👞👟👠👡👢👑👒🎩🎓💄💍💎🔊📢📣🔔🎼🎵🎶🎤🎧📻🎷🎸🎹🎺🎻📱📲📞📟📠🔋🔌💻💽💾💿📀🎥🎬"
    "📺📷📹📼🔍🔎💡🔦🏮📔📕📖📗📘📙📚📓📒📃📜📄📰📑🔖💰💴💵💸💳💹📧📨📩📤📥📦📫📪📮📝💼📁📂📅📆📇📈📉"
    "📊📋📌📍📎📏📐🔒🔓🔏🔐🔑🔨💣🔧🔩🔗📡💉💊🚪🚽🚬🗿🏧🚹🚺🚻🚼🚾🚫🚭🔞🔃🔙🔚🔛🔜🔝🔯🔼🔽🎦📶📳📴💱💲"
    "🔱📛🔰🔟🔠🔡🔢🔣🔤🆎🆑🆒🆓🆔🆕🆖🆗🆘🆙🆚🈁🈶🈯🉐🈹🈚🈲🉑🈸🈴🈳🈺🈵🔴🔵🔶🔷🔸🔹🔺🔻💠🔘🔳🔲🏁🚩🎌"
)


def to_words(id: int) -> str:
    """The form in words, e.g. "random-idea-yoyo--sugar-printer-academy"; the low 32 bits come first."""
    text: str = _mnemonicode().mnformat(id.to_bytes(8, "little"))
    return text


def from_words(text: str) -> int | None:
    """The id in words, in any case; None if it is none. Each id has exactly one such text."""
    text = text.lower()
    try:
        data: bytes = _mnemonicode().mnparse(text)
    except ValueError:
        return None
    id = int.from_bytes(data, "little")
    return id if len(data) == 8 and to_words(id) == text else None


def _mnemonicode() -> ModuleType:
    try:
        import mnemonicode
    except ImportError:
        raise Rejected(
            "job ids in words need the package mnemonicode",
            code="no-mnemonicode",
            hint="pip install mnemonicode, or write the id in another form (fluxkv job id --to=f58)",
        ) from None
    return mnemonicode


def to_emoji(id: int) -> str:
    """The form in emoji, most significant digit first."""
    text = ""
    while True:
        id, digit = divmod(id, len(_EMOJI))
        text = _EMOJI[digit] + text
        if not id:
            return text


def from_emoji(text: str) -> int | None:
    """The id in emoji; None if another character is among them."""
    id = 0
    for char in text:
        digit = _EMOJI.find(char)
        if digit < 0:
            return None
        id = id * len(_EMOJI) + digit
    return id
