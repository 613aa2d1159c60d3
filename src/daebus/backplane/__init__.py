"""What joins several processes of one app: frames, channels, and who carries them.

May import: errors, arguments, waits, data, interrupts, and of the server its log and its threads.
It knows neither HTTP nor WebSockets: a payload is bytes that others made. ``protocol`` is what a
carrier offers, ``memory`` one within this process, ``frames`` and ``names`` are pure.
"""
