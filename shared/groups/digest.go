package groups

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
)

// Digest is a short hash of all that decides where the positions lead. It needs no map: how far a copy has come decides only for those
// ahead of it, and for the others which generation of the copy it is.
func (c *Copies) Digest(positions []Position) string {
	h := sha256.New()
	for _, p := range positions {
		fmt.Fprintf(h, "%q %q %d %d %q ", p.Group, p.Source.Topic, p.Source.Partition, p.Commit.Offset, p.Commit.Metadata)
		cursor, begun := c.cursor(p)
		reached, leads := cursor.Offset, cursor.Target
		if p.back {
			reached, leads = leads, reached
		}
		switch {
		case !begun:
			io.WriteString(h, "-\n")
		case p.Commit.Offset > reached:
			fmt.Fprintf(h, "%d %s %d\n", cursor.Epoch, cursor.TargetTopicID, leads)
		default:
			fmt.Fprintf(h, "%d %s\n", cursor.Epoch, cursor.TargetTopicID)
		}
	}
	return text(h)
}

// Digest is a short hash of what decides which positions are written on the target.
func (s Standing) Digest(positions []Position) string {
	h := sha256.New()
	for _, p := range positions {
		own, has := s.Offsets[p.Group].Commits[p.Target]
		fmt.Fprintf(h, "%t %t %d\n", s.idle(p.Group), has, own.Offset)
	}
	return text(h)
}

func text(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)[:8]) }
