"""What the pages say, in English and in Russian."""

from __future__ import annotations

from collections.abc import Mapping

DEFAULT_LANGUAGE = "en"

_ENGLISH = {
    "unknown.title": "This link does not work",
    "unknown.text": "It may be incomplete. Copy the whole address from the message, or ask whoever sent it.",
    "lost.title": "This link can no longer be opened",
    "lost.text": "It is too old for us to read. Please ask whoever sent the message for the address.",
    "unsafe.title": "This link was not opened",
    "unsafe.text": "Its address is not one that we send people to. Please ask whoever sent the message.",
    "stopped.title": "This link was switched off",
    "stopped.text": "The page that it led to is not available any more, or not safe.",
    "blocked.title": "This request was not answered",
    "blocked.text": "Programs of this kind, or from this network, are not served here.",
    "failed.title": "This did not work just now",
    "failed.text": "Nothing was changed. Please try again in a few minutes.",
    "unread.title": "Nothing was changed",
    "unread.text": "The form could not be read. Please open the link in the message again.",
    "unsubscribe.title": "Unsubscribe",
    "unsubscribe.text": "Press the button, and you will get no more messages of this kind.",
    "unsubscribe.person": "Press the button, and no more messages of this kind will come to {person}.",
    "unsubscribe.button": "Unsubscribe",
    "unsubscribed.title": "You are unsubscribed",
    "unsubscribed.text": "You will get no more messages of this kind. You can close this page.",
    "confirm.title": "Confirm your subscription",
    "confirm.text": "Press the button to confirm that you want to get these messages.",
    "confirm.button": "Confirm",
    "confirmed.title": "Thank you",
    "confirmed.text": "Your subscription is confirmed. You can close this page.",
    "preferences.title": "Your preferences",
    "preferences.text": "Choose which messages you want to get.",
    "preferences.person": "Choose which messages you want to get at {person}.",
    "preferences.lists": "Stop sending me",
    "preferences.lists.hint": "What you tick ends. What you leave empty stays as it is.",
    "preferences.channels": "Stop all messages by",
    "preferences.level": "What may be recorded when I open a message or follow a link",
    "preferences.full": "Everything: who I am, when it was, which link, and my device and network address",
    "preferences.anonymous": "Only that somebody did, in which hour and by which link; not who",
    "preferences.none": "Nothing",
    "preferences.button": "Save",
    "saved.title": "Your choice is saved",
    "saved.text": "You can close this page, or open the link again to change it.",
    "channel.email": "E-mail",
    "channel.sms": "SMS",
    "channel.push": "Push notifications",
    "channel.whatsapp": "WhatsApp",
    "channel.viber": "Viber",
    "channel.telegram_bot": "Telegram",
}

_RUSSIAN = {
    "unknown.title": "Ссылка не работает",
    "unknown.text": "Возможно, она неполная. Скопируйте адрес из сообщения целиком или спросите отправителя.",
    "lost.title": "Эту ссылку больше нельзя открыть",
    "lost.text": "Она слишком старая, и мы не можем её прочитать. Спросите адрес у отправителя.",
    "unsafe.title": "Ссылка не открыта",
    "unsafe.text": "Мы не отправляем людей по таким адресам. Спросите отправителя сообщения.",
    "stopped.title": "Ссылка отключена",
    "stopped.text": "Страница, на которую она вела, больше не доступна или небезопасна.",
    "blocked.title": "Запрос отклонён",
    "blocked.text": "Программы этого вида или из этой сети здесь не обслуживаются.",
    "failed.title": "Сейчас не получилось",
    "failed.text": "Ничего не изменилось. Попробуйте ещё раз через несколько минут.",
    "unread.title": "Ничего не изменилось",
    "unread.text": "Не удалось прочитать форму. Откройте ссылку из сообщения ещё раз.",
    "unsubscribe.title": "Отписаться",
    "unsubscribe.text": "Нажмите кнопку, и такие сообщения больше не будут приходить.",
    "unsubscribe.person": "Нажмите кнопку, и такие сообщения больше не будут приходить на {person}.",
    "unsubscribe.button": "Отписаться",
    "unsubscribed.title": "Вы отписаны",
    "unsubscribed.text": "Такие сообщения больше не придут. Эту страницу можно закрыть.",
    "confirm.title": "Подтвердите подписку",
    "confirm.text": "Нажмите кнопку, чтобы подтвердить, что хотите получать эти сообщения.",
    "confirm.button": "Подтвердить",
    "confirmed.title": "Спасибо",
    "confirmed.text": "Подписка подтверждена. Эту страницу можно закрыть.",
    "preferences.title": "Ваши настройки",
    "preferences.text": "Выберите, какие сообщения вы хотите получать.",
    "preferences.person": "Выберите, какие сообщения должны приходить на {person}.",
    "preferences.lists": "Больше не присылайте мне",
    "preferences.lists.hint": "Отмеченное прекратится. Неотмеченное останется как есть.",
    "preferences.channels": "Прекратить все сообщения через",
    "preferences.level": "Что можно записывать, когда я открываю сообщение или перехожу по ссылке",
    "preferences.full": "Всё: кто я, когда это было, какая ссылка, моё устройство и сетевой адрес",
    "preferences.anonymous": "Только то, что кто-то это сделал, в котором часу и по какой ссылке; но не кто",
    "preferences.none": "Ничего",
    "preferences.button": "Сохранить",
    "saved.title": "Ваш выбор сохранён",
    "saved.text": "Страницу можно закрыть. Чтобы изменить выбор, откройте ссылку ещё раз.",
    "channel.email": "Электронная почта",
    "channel.sms": "SMS",
    "channel.push": "Push-уведомления",
    "channel.whatsapp": "WhatsApp",
    "channel.viber": "Viber",
    "channel.telegram_bot": "Telegram",
}

WORDING: Mapping[str, Mapping[str, str]] = {"en": _ENGLISH, "ru": _RUSSIAN}

_HEADER_LIMIT = 500


def language_of(accepted: bytes) -> str:
    """The language of an Accept-Language header that we have and that is wanted most; English else."""
    best, weight = DEFAULT_LANGUAGE, 0.0
    for part in accepted[:_HEADER_LIMIT].decode("latin-1").split(","):
        name, _, parameter = part.strip().partition(";")
        language = name.strip().lower().partition("-")[0]
        wanted = _weight(parameter)
        if language in WORDING and wanted > weight:
            best, weight = language, wanted
    return best


def _weight(parameter: str) -> float:
    name, _, value = parameter.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0
