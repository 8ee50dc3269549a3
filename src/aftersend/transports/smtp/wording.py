"""What a digest says, in the languages that it speaks, and how each writes numbers and times."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime

from msgspec import Struct

from aftersend.core.taxonomy import channel_of

NO_BREAK = "\u00a0"


class Wording(Struct, frozen=True):
    """One language."""

    tag: str
    """For `lang=`."""
    thousands: str
    decimal: str
    percent: str
    months: tuple[str, ...]
    weekdays: tuple[str, ...]
    sizes: tuple[str, ...]
    texts: Mapping[str, str]
    plurals: Mapping[str, tuple[str, ...]]
    """One; many. Russian: one, few, many."""
    whats: Mapping[str, str]
    """What can happen, by the last word of its type."""
    channels: Mapping[str, str]

    def __getitem__(self, key: str) -> str:
        return self.texts[key]

    def number(self, value: int) -> str:
        """With its thousands set apart."""
        return f"{value:,}".replace(",", self.thousands)

    def share(self, part: int, whole: int) -> str:
        """As a percentage; what is there but rounds to nothing is told as less than 0.1."""
        percent = 100 * part / whole if whole else 0.0
        text = "<0.1" if 0 < percent < 0.05 else f"{percent:.1f}"
        return text.replace(".", self.decimal) + self.percent

    def size(self, count: int) -> str:
        """Bytes for people."""
        value, unit = float(count), 0
        while value >= 999.5 and unit < len(self.sizes) - 1:
            value, unit = value / 1_000, unit + 1
        text = f"{value:.1f}" if unit and value < 9.95 else f"{value:.0f}"
        return f"{text.replace('.', self.decimal)}{NO_BREAK}{self.sizes[unit]}"

    def counted(self, count: int, noun: str) -> str:
        """A number and its noun."""
        return f"{self.number(count)}{NO_BREAK}{self.plurals[noun][_form(count, len(self.plurals[noun]))]}"

    def day(self, day: date) -> str:
        """As `21 November 2026`."""
        return f"{day.day}{NO_BREAK}{self.months[day.month - 1]} {day.year}"

    def short_day(self, day: date) -> str:
        """As `21 Nov`."""
        return f"{day.day}{NO_BREAK}{self.months[day.month - 1][:3]}"

    def weekday(self, day: date) -> str:
        """As `Saturday`."""
        return self.weekdays[day.weekday()]

    def period(self, since: datetime, until: datetime) -> str:
        """From when to when; one day is told once."""
        if since.date() != until.date():
            return f"{self.day(since)}, {since:%H:%M} – {self.day(until)}, {until:%H:%M}"
        times = f"{since:%H:%M}" if f"{since:%H:%M}" == f"{until:%H:%M}" else f"{since:%H:%M} – {until:%H:%M}"
        return f"{self.weekday(since)}, {self.day(since)}, {times}"

    def type(self, type_: str) -> str:
        """What happened, for people; a word that is not known stays as it is."""
        channel, (subject, _, what) = channel_of(type_), type_.rpartition(".")
        name = self.whats.get(type_) or self.whats.get(what) or what.replace("_", " ")
        return f"{self.channels.get(channel or subject, (channel or subject).replace('_', ' '))}: {name}".strip(": ")


def _form(count: int, forms: int) -> int:
    if forms == 2:
        return 0 if count == 1 else 1
    if count % 10 == 1 and count % 100 != 11:
        return 0
    return 1 if 2 <= count % 10 <= 4 and not 12 <= count % 100 <= 14 else 2


_ENGLISH = Wording(
    tag="en",
    thousands=",",
    decimal=".",
    percent="%",
    months=(
        *("January", "February", "March", "April", "May", "June"),
        *("July", "August", "September", "October", "November", "December"),
    ),
    weekdays=("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    sizes=("bytes", "kB", "MB", "GB"),
    plurals={"event": ("event", "events"), "more": ("more type", "more types")},
    texts={
        "received": "Received",
        "by_type": "By type",
        "type": "Type",
        "count": "Events",
        "share": "Share",
        "total": "Total",
        "others": "{0}",
        "by_hour": "By hour",
        "by_day": "By day",
        "hour": "Hour",
        "day": "Day",
        "alt_hour": "Stacked bars of the events by hour. The most, {0}, from {1} on; {2} in all.",
        "alt_day": "Stacked bars of the events by day. The most, {0}, on {1}; {2} in all.",
        "outside": "{0} outside of the bars: they happened earlier or later.",
        "failures": "Most frequent failures",
        "reply": "What the other side said",
        "attached": "Attached: {0} ({1}).",
        "too_large": "The file {0} ({1}) is too large to be attached; the limit is {2}.",
        "refused": "The file {0} ({1}) is not attached: the relay takes no mail that large.",
        "nothing": "Nothing happened.",
        "numbers": "Numbers {0} to {1} of this subscription",
        "footer": "Written by aftersend for the subscription {0}.",
        "intro": "What happened is in the attached file.",
    },
    whats={
        "hard_bounced": "bounced for good",
        "soft_bounced": "bounced for now",
        "first_opened": "opened for the first time",
        "first_clicked": "clicked for the first time",
        "complained": "called spam",
        "skimmed": "read for 4 to 8 seconds",
        "glanced": "read for under 4 seconds",
        "event.reclassified": "judged anew",
        "other": "other",
    },
    channels={
        "email": "E-mail",
        "sms": "SMS",
        "push": "Push",
        "whatsapp": "WhatsApp",
        "viber": "Viber",
        "telegram_bot": "Telegram bot",
        "telegram_group": "Telegram group",
        "popup": "Popup",
        "web": "Web",
        "campaign": "Campaign",
        "profile": "Profile",
        "segment": "Segment",
        "promocode": "Promotion code",
        "record": "Record",
        "event": "Hit",
    },
)

_RUSSIAN = Wording(
    tag="ru",
    thousands=NO_BREAK,
    decimal=",",
    percent=f"{NO_BREAK}%",
    months=(
        *("января", "февраля", "марта", "апреля", "мая", "июня"),
        *("июля", "августа", "сентября", "октября", "ноября", "декабря"),
    ),
    weekdays=("понедельник", "вторник", "среда", "четверг", "пятница", "суббота", "воскресенье"),
    sizes=("Б", "кБ", "МБ", "ГБ"),
    plurals={"event": ("событие", "события", "событий"), "more": ("вид", "вида", "видов")},
    texts={
        "received": "Получено",
        "by_type": "По видам",
        "type": "Вид",
        "count": "Событий",
        "share": "Доля",
        "total": "Всего",
        "others": "ещё {0}",
        "by_hour": "По часам",
        "by_day": "По дням",
        "hour": "Час",
        "day": "День",
        "alt_hour": "Столбцы событий по часам. Больше всего, {0}, начиная с {1}; всего {2}.",
        "alt_day": "Столбцы событий по дням. Больше всего, {0}, {1}; всего {2}.",
        "outside": "Вне столбцов {0}: они произошли раньше или позже.",
        "failures": "Самые частые ошибки",
        "reply": "Что ответила другая сторона",
        "attached": "Приложен файл {0} ({1}).",
        "too_large": "Файл {0} ({1}) слишком велик и не приложен; предел {2}.",
        "refused": "Файл {0} ({1}) не приложен: почтовый сервер не берёт таких больших писем.",
        "nothing": "Ничего не произошло.",
        "numbers": "Номера с {0} по {1} этой подписки",
        "footer": "Составлено aftersend для подписки {0}.",
        "intro": "Что произошло, в приложенном файле.",
    },
    whats={
        "accepted": "принято",
        "sent": "отправлено",
        "delivered": "доставлено",
        "deferred": "отложено",
        "undelivered": "не доставлено",
        "suppressed": "не отправлялось",
        "rejected": "отклонено",
        "render_failed": "ошибка шаблона",
        "hard_bounced": "возврат навсегда",
        "soft_bounced": "возврат на время",
        "blocked": "заблокировано",
        "bounced": "возврат",
        "opened": "открыто",
        "first_opened": "открыто впервые",
        "clicked": "переход по ссылке",
        "first_clicked": "первый переход",
        "read": "прочитано",
        "skimmed": "читали 4–8 секунд",
        "glanced": "читали менее 4 секунд",
        "confirmed": "подтверждено",
        "replied": "ответ",
        "auto_replied": "автоответ",
        "received": "получено",
        "subscribed": "подписка",
        "subscription_confirmed": "подписка подтверждена",
        "unsubscribed": "отписка",
        "complained": "жалоба на спам",
        "started": "началась",
        "sending": "отправляется",
        "finished": "завершена",
        "failed": "ошибка",
        "requested": "заказана",
        "event.reclassified": "пересмотрено",
        "other": "прочее",
    },
    channels={
        "email": "Письмо",
        "sms": "SMS",
        "push": "Пуш",
        "whatsapp": "WhatsApp",
        "viber": "Viber",
        "telegram_bot": "Бот Telegram",
        "telegram_group": "Группа Telegram",
        "popup": "Попап",
        "web": "Сайт",
        "campaign": "Кампания",
        "profile": "Профиль",
        "segment": "Сегмент",
        "promocode": "Промокод",
        "record": "Запись",
        "event": "Действие",
    },
)

WORDINGS = {"en": _ENGLISH, "ru": _RUSSIAN}
