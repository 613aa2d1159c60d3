"""Topics that outlive the program: a SQLite file, and a thread for each that writes it.

It imports ``topics.store`` and the values of its neighbours, not the feeds: those are asked
through a Protocol. ``sqlite3`` is imported here alone, and this room only by an app that
keeps topics. The rules:

1. Who publishes appends to a queue and never waits for the disk.
2. What the queue has no room for is not lost: the topic is written anew from its log.
3. A topic keeps its epoch only if the file proves that nothing is missing: before anybody can
   publish it is marked as open, on the disk, and a clean stop takes the mark away.
4. A file has one owner, and what is no file of ours is left as it is.
"""
