package lease_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kferry/kferry/shared/lease"
)
