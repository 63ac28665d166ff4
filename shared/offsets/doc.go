// Package offsets knows which offset of a copy belongs to which offset of its source, exactly and at any lag.
//
// A position on the source is what a consumer has committed: the offset of the next record it wants. Its position on the target is that of
// the first copied record from there on. Between the two lies a map, one for each partition: stretches of records, which follow each other
// on the target, and the holes between them on the source (markers, aborted records, what compaction took).
//
// Who copies keeps the map in a Track. Its newest chunk is in the partition's cursor, beside the two offsets that it ends in, and is
// written with them, atomically: no cursor is ahead of its map or behind it, whoever dies when. A chunk that is full doesn't change any
// more. It stays in the cursor until it is on the map's topic (Archive), so that a topic that can't be written holds nobody up.
//
// Who translates takes the cursor, and what it refers to from the topic (Map).
//
// # Invariants
//
//   - A chunk names the one before it by its hash, and a cursor the newest. So what a worker has written that then lost its lease or its
//     commit is on the topic but on no cursor's path, and says nothing. The same chunk written twice is the same record.
//   - Within a chunk the target has no holes. Where it does (a decision, a late batch of an earlier run, another writer), or where the source
//     goes back, a chunk ends and the next begins at a place of its own. What lies between two chunks that don't meet is not known, and
//     its positions lead to the end of the first.
//   - A later chunk goes before earlier ones from its first source offset on, and no position lies behind a later chunk's first target
//     offset: it lies where the target's log ended then.
//   - Of what MirrorMaker copied little is known: single records, each of them a bound to the positions behind it. A chunk of bounds holds
//     those. None of its positions is exact.
//   - A position is never behind the record that it is to be at. Exact means that nothing before that record is read again.
//   - Nothing is written while a copy is dense, and a map takes about a bit for each source offset at most.
package offsets
