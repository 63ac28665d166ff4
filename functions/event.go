package functions

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"
)

// What CloudEvents 1.0 calls the forms of a message, by content type.
const (
	structured = "application/cloudevents+json"
	batched    = "application/cloudevents-batch+json"
)

// mostEvent is how much of a structured event is read, and of any other's data.
const mostEvent = 256 << 10

// A notEvent is why a request is no event, as HTTP has it.
type notEvent struct {
	status int
	why    string
}

func badEvent(format string, args ...any) *notEvent {
	return &notEvent{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// checkEvent refuses what is no CloudEvent. Nothing of one is used: it may be forged, doubled or late, and what there is to do stands on
// the queue. So this finds what calls the wrong place.
func checkEvent(r *http.Request) *notEvent {
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, mostEvent))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return &notEvent{http.StatusRequestEntityTooLarge, fmt.Sprintf("the event is larger than %d bytes", mostEvent)}
	}
	if err != nil {
		return badEvent("the event's body ends early: %v", err)
	}
	form, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case r.Header.Get("Content-Type") != "" && err != nil:
		return badEvent("Content-Type: %v", err)
	case form == structured:
		return checkStructured(body)
	case form == batched:
		return &notEvent{http.StatusUnsupportedMediaType, "a batch of events; send them one by one, or one for all: an event only says that there may be work"}
	case strings.HasPrefix(form, "application/cloudevents"):
		return &notEvent{http.StatusUnsupportedMediaType, fmt.Sprintf("an event in the form %s; send it as %s, or with its attributes in ce-… headers", form, structured)}
	}
	return checkAttributes("header ce-", func(name string) (string, bool, error) {
		values := r.Header.Values("Ce-" + name)
		switch len(values) {
		case 0:
			return "", false, nil
		case 1:
			return values[0], true, nil
		}
		return "", true, errors.New("is there more than once")
	})
}

func checkStructured(body []byte) *notEvent {
	var attributes map[string]json.RawMessage
	if err := json.Unmarshal(body, &attributes); err != nil {
		return badEvent("the event is no JSON object: %v", err)
	}
	if attributes == nil {
		return badEvent("the event is null, and no JSON object")
	}
	return checkAttributes("", func(name string) (text string, there bool, err error) {
		raw, there := attributes[name]
		if !there {
			return "", false, nil
		}
		var value *string
		if err := json.Unmarshal(raw, &value); err != nil {
			return "", true, errors.New("is no string")
		}
		if value == nil {
			return "", false, nil
		}
		return *value, true, nil
	})
}

// checkAttributes looks at those that every event has, and at one that has a form.
func checkAttributes(prefix string, get func(name string) (text string, there bool, err error)) *notEvent {
	for _, name := range []string{"specversion", "id", "source", "type"} {
		switch text, there, err := get(name); {
		case err != nil:
			return badEvent("no CloudEvent: %s%s %v", prefix, name, err)
		case !there:
			return badEvent("no CloudEvent: %s%s is missing", prefix, name)
		case text == "":
			return badEvent("no CloudEvent: %s%s is empty", prefix, name)
		case name == "specversion" && text != "1.0":
			return badEvent("%s%s is %.20q; known is 1.0", prefix, name, text)
		}
	}
	text, there, err := get("time")
	if err != nil {
		return badEvent("no CloudEvent: %stime %v", prefix, err)
	}
	if _, err := time.Parse(time.RFC3339, text); there && err != nil {
		return badEvent("no CloudEvent: %stime is %.40q; give a time of RFC 3339, like 2026-11-24T08:00:00Z", prefix, text)
	}
	return nil
}
