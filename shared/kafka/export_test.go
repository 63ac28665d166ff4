package kafka

// CheckAnswer walks an answer as a connection does, from behind its number on.
func CheckAnswer(key, version int16, b []byte) error { return shapeKey{key, version}.check(b) }
