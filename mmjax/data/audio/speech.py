"""Speech synthesis by eSpeak NG, a formant synthesizer that needs no model and no download."""

import ctypes
import os
import shutil
import tempfile
from typing import Any

import numpy as np
from jaxtyping import Int

_SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT: pass the samples to the callback, in the calling thread
_DONT_EXIT = 0x8000  # espeakINITIALIZE: return an error instead of ending the process
_UTF8 = 1  # espeakCHARS
_RATE, _PITCH = 1, 3  # espeak_PARAMETER

_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


class SpeechSynthesizer:
    """An instance of the synthesizer.

    The library keeps state in globals (for example the phase of the voice's flutter), so that an
    utterance depends on those before it. Each instance is therefore a fresh copy of the library:
    two instances that synthesize the same texts in the same order give the same samples, whatever
    else has happened in their processes. This does not hold for variants whose file contains
    `breath`, for which the library reads uninitialized memory, or `klatt`, for which it draws
    random numbers.

    Attributes:
      sample_rate: in Hz.
    """

    sample_rate: int

    def __init__(self) -> None:
        self._chunks: list[np.ndarray] = []
        self._collect = _Callback(self._receive)  # the library holds no reference to it
        self._library, self._data = _load_fresh_library()
        self.sample_rate = self._library.espeak_Initialize(
            _SYNCHRONOUS, 0, self._data.encode(), _DONT_EXIT
        )
        if self.sample_rate <= 0:
            raise RuntimeError(f"eSpeak NG could not read its data in {self._data}.")
        self._library.espeak_SetSynthCallback(self._collect)

    def synthesize(
        self, text: str, voice: str, *, rate: int = 175, pitch: int = 50
    ) -> Int[np.ndarray, " time"]:
        """Synthesizes `text`.

        Args:
          text: the text.
          voice: a language and, after "+", a variant: "de", "de+m3", "en-us+f2".
          rate: speaking rate in words per minute, 80 to 450.
          pitch: base pitch, 0 to 99.

        Returns:
          The samples, 16 bits each.

        Raises:
          ValueError: if there is no such voice, or rate or pitch are out of range.
        """
        if not 80 <= rate <= 450:
            raise ValueError(f"rate is {rate}; it must be 80 to 450 words per minute.")
        if not 0 <= pitch <= 99:
            raise ValueError(f"pitch is {pitch}; it must be 0 to 99.")
        # The library silently replaces an unknown variant by its usual voice.
        variant = os.path.join(self._data, "voices", "!v", voice.partition("+")[2])
        if self._library.espeak_SetVoiceByName(voice.encode()) or not os.path.exists(variant):
            raise ValueError(f"eSpeak NG has no voice {voice!r}.")
        self._library.espeak_SetParameter(_RATE, rate, 0)
        self._library.espeak_SetParameter(_PITCH, pitch, 0)
        self._chunks.clear()
        encoded = text.encode() + b"\0"
        self._library.espeak_Synth(encoded, len(encoded), 0, 0, 0, _UTF8, None, None)
        return np.concatenate([np.zeros(0, np.int16), *self._chunks])

    def _receive(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0  # go on


def _load_fresh_library() -> tuple[ctypes.CDLL, str]:
    """Loads a copy of the library with its own globals; returns it and the folder of its data.

    The loader identifies a library by its file, so that a copy of the file is loaded.
    """
    try:
        import espeakng_loader
    except ImportError as error:
        raise ImportError("Speech synthesis needs eSpeak NG: pip install 'mmjax[demo]'.") from error
    original = espeakng_loader.get_library_path()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        copy = shutil.copy(original, os.path.join(folder, os.path.basename(original)))
        library = ctypes.CDLL(copy)
    library.espeak_Synth.argtypes = [
        ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint,
        ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p,
    ]  # fmt: skip
    return library, espeakng_loader.get_data_path()
