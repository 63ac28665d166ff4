// Package offsets knows which offset of a copy belongs to which offset of its source, at any lag.
package offsets
