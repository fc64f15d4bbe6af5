"""X11's own names of keysyms, as ``keysymdef.h`` and ``XF86keysym.h`` spell them.

Runs of successive numbers: the first one, and the names from there on. Left out: keys that end, switch or steer the
X server itself, letters of other scripts, which are named by the character itself, and what :mod:`.keys` lists anyway.
"""

from __future__ import annotations

from collections.abc import Mapping

_LATIN_1 = {
    0xA0: (
        "nobreakspace exclamdown cent sterling currency yen brokenbar section diaeresis copyright ordfeminine "
        "guillemotleft notsign hyphen registered macron degree plusminus twosuperior threesuperior acute mu "
        "paragraph periodcentered cedilla onesuperior masculine guillemotright onequarter onehalf threequarters "
        "questiondown Agrave Aacute Acircumflex Atilde Adiaeresis Aring AE Ccedilla Egrave Eacute Ecircumflex "
        "Ediaeresis Igrave Iacute Icircumflex Idiaeresis ETH Ntilde Ograve Oacute Ocircumflex Otilde Odiaeresis "
        "multiply Oslash Ugrave Uacute Ucircumflex Udiaeresis Yacute THORN ssharp agrave aacute acircumflex "
        "atilde adiaeresis aring ae ccedilla egrave eacute ecircumflex ediaeresis igrave iacute icircumflex "
        "idiaeresis eth ntilde ograve oacute ocircumflex otilde odiaeresis division oslash ugrave uacute "
        "ucircumflex udiaeresis yacute thorn ydiaeresis"
    ),
}
"""Characters 0xA0 to 0xFF; where two names differ in case only, so do the characters."""
_KEYS = {
    0xFE01: "ISO_Lock ISO_Level2_Latch",
    0xFE04: (
        "ISO_Level3_Latch ISO_Level3_Lock ISO_Group_Latch ISO_Group_Lock ISO_Next_Group ISO_Next_Group_Lock "
        "ISO_Prev_Group ISO_Prev_Group_Lock ISO_First_Group ISO_First_Group_Lock ISO_Last_Group "
        "ISO_Last_Group_Lock"
    ),
    0xFE11: "ISO_Level5_Shift ISO_Level5_Latch ISO_Level5_Lock",
    0xFE34: "ISO_Enter",
    0xFE50: (
        "dead_grave dead_acute dead_circumflex dead_tilde dead_macron dead_breve dead_abovedot dead_diaeresis "
        "dead_abovering dead_doubleacute dead_caron dead_cedilla dead_ogonek dead_iota dead_voiced_sound "
        "dead_semivoiced_sound dead_belowdot dead_hook dead_horn dead_stroke dead_abovecomma "
        "dead_abovereversedcomma dead_doublegrave dead_belowring dead_belowmacron dead_belowcircumflex "
        "dead_belowtilde dead_belowbreve dead_belowdiaeresis dead_invertedbreve dead_belowcomma dead_currency"
    ),
    0xFE80: (
        "dead_a dead_A dead_e dead_E dead_i dead_I dead_o dead_O dead_u dead_U dead_small_schwa "
        "dead_capital_schwa dead_greek"
    ),
    0xFE90: "dead_lowline dead_aboveverticalline dead_belowverticalline dead_longsolidusoverlay",
    0xFF21: (
        "Kanji Muhenkan Henkan_Mode Romaji Hiragana Katakana Hiragana_Katakana Zenkaku Hankaku Zenkaku_Hankaku "
        "Touroku Massyo Kana_Lock Kana_Shift Eisu_Shift Eisu_toggle"
    ),
    0xFF37: "Codeinput",
    0xFF3C: "SingleCandidate MultipleCandidate PreviousCandidate",
    0xFF62: "Execute",
    0xFF7E: "Mode_switch",
    0xFF91: "KP_F1 KP_F2 KP_F3 KP_F4",
    0xFF9A: "KP_Prior KP_Next",
    0xFFE6: "Shift_Lock",
}
"""Keys of keyboards around the world: editing, keypad, input methods, groups and levels, dead keys."""
_VENDOR = {
    0x1008FF01: (
        "ModeLock MonBrightnessUp MonBrightnessDown KbdLightOnOff KbdBrightnessUp KbdBrightnessDown MonBrightnessCycle"
    ),
    0x1008FF10: (
        "Standby AudioLowerVolume AudioMute AudioRaiseVolume AudioPlay AudioStop AudioPrev AudioNext HomePage "
        "Mail Start Search AudioRecord Calculator Memo ToDoList Calendar PowerDown ContrastAdjust RockerUp "
        "RockerDown RockerEnter Back Forward Stop Refresh PowerOff WakeUp Eject ScreenSaver WWW Sleep Favorites "
        "AudioPause AudioMedia MyComputer VendorHome LightBulb Shop History OpenURL AddFavorite HotLinks "
        "BrightnessAdjust Finance Community AudioRewind BackForward Launch0 Launch1 Launch2 Launch3 Launch4 "
        "Launch5 Launch6 Launch7 Launch8 Launch9 LaunchA LaunchB LaunchC LaunchD LaunchE LaunchF ApplicationLeft "
        "ApplicationRight Book CD Calculater Clear Close Copy Cut Display DOS Documents Excel Explorer Game Go "
        "iTouch LogOff Market Meeting"
    ),
    0x1008FF65: "MenuKB MenuPB MySites New News OfficeHome Open Option Paste Phone",
    0x1008FF70: "Q",
    0x1008FF72: (
        "Reply Reload RotateWindows RotationPB RotationKB Save ScrollUp ScrollDown ScrollClick Send Spell "
        "SplitScreen Support TaskPane Terminal Tools Travel"
    ),
    0x1008FF84: (
        "UserPB User1KB User2KB Video WheelButton Word Xfer ZoomIn ZoomOut Away Messenger WebCam MailForward "
        "Pictures Music Battery Bluetooth WLAN UWB AudioForward AudioRepeat AudioRandomPlay Subtitle "
        "AudioCycleTrack CycleAngle FrameBack FrameForward Time Select View TopMenu Red Green Yellow Blue Suspend "
        "Hibernate TouchpadToggle"
    ),
    0x1008FFB0: "TouchpadOn TouchpadOff AudioMicMute Keyboard WWAN RFKill AudioPreset RotationLockToggle FullScreen",
}
"""Keys for media and programs, written with XF86 in front."""
_ALSO = {
    "Eth": 0xD0, "Ooblique": 0xD8, "Thorn": 0xDE, "ooblique": 0xF8, "Henkan": 0xFF23, "Kanji_Bangou": 0xFF37,
    "Zen_Koho": 0xFF3D, "Mae_Koho": 0xFF3E, "script_switch": 0xFF7E, "ISO_Group_Shift": 0xFF7E,
    "dead_perispomeni": 0xFE53, "dead_psili": 0xFE64, "dead_dasia": 0xFE65,
}  # fmt: skip


def _numbered(runs: Mapping[int, str]) -> dict[str, int]:
    return {name: first + place for first, names in runs.items() for place, name in enumerate(names.split())}


KEYSYMS = _numbered(_LATIN_1) | _numbered(_KEYS) | _ALSO
KEYSYMS |= {f"XF86{name}": code for name, code in _numbered(_VENDOR).items()}
