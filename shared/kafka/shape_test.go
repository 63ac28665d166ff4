package kafka_test

import (
	"math/rand/v2"
	"reflect"
	"runtime"
	"testing"
	"time"

	"github.com/kferry/kferry/shared/kafka"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// asked are the kinds of requests that kferry and franz-go make for it.
var asked = []kmsg.Key{
	kmsg.Produce, kmsg.Fetch, kmsg.ListOffsets, kmsg.Metadata, kmsg.OffsetCommit, kmsg.OffsetFetch, kmsg.FindCoordinator, kmsg.DescribeGroups,
	kmsg.ListGroups, kmsg.SASLHandshake, kmsg.ApiVersions, kmsg.CreateTopics, kmsg.DeleteTopics, kmsg.InitProducerID, kmsg.OffsetForLeaderEpoch,
	kmsg.DescribeACLs, kmsg.CreateACLs, kmsg.DeleteACLs, kmsg.DescribeConfigs, kmsg.DescribeLogDirs, kmsg.SASLAuthenticate, kmsg.CreatePartitions,
	kmsg.IncrementalAlterConfigs, kmsg.DescribeProducers, kmsg.ListTransactions, kmsg.ConsumerGroupDescribe, kmsg.DescribeCluster,
}

// header is what comes before an answer of a version with tags.
func header(resp kmsg.Response) []byte {
	if resp.IsFlexible() && resp.Key() != int16(kmsg.ApiVersions) {
		return []byte{0}
	}
	return nil
}

func TestAnswersAreWalkedAsTheyAreWritten(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, key := range asked {
		for version := range kmsg.ResponseForKey(int16(key)).MaxVersion() + 1 {
			for range 10 {
				resp := kmsg.ResponseForKey(int16(key))
				resp.SetVersion(version)
				fill(reflect.ValueOf(resp).Elem(), random)
				b := resp.AppendTo(header(resp))
				if err := kafka.CheckAnswer(int16(key), version, b); err != nil {
					t.Fatalf("%s v%d: %v: %+v", key.Name(), version, err, resp)
				}
				for end := range len(b) {
					if key == kmsg.ApiVersions && end > 1 && b[1] == 35 {
						break
					}
					if err := kafka.CheckAnswer(int16(key), version, b[:end]); err == nil {
						t.Fatalf("%s v%d: %d bytes of %d pass: %+v", key.Name(), version, end, len(b), resp)
					}
				}
			}
		}
	}
}

// fill puts something into everything.
func fill(v reflect.Value, random *rand.Rand) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if name := v.Type().Field(i).Name; name != "Version" && name != "UnknownTags" {
				fill(v.Field(i), random)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), random.IntN(3), 3))
		for i := range v.Len() {
			if e, ok := v.Index(i).Addr().Interface().(interface{ Default() }); ok {
				e.Default()
			}
			fill(v.Index(i), random)
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), random)
		}
	case reflect.Pointer:
		if random.IntN(2) == 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(v.Elem(), random)
		}
	case reflect.String:
		v.SetString("tpoicsanddogs"[:random.IntN(13)])
	case reflect.Bool:
		v.SetBool(random.IntN(2) == 0)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(random.Uint64() >> (64 - v.Type().Bits()))
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(random.Uint64()) >> (64 - v.Type().Bits()))
	}
}

// amplified is how much memory an answer may take for a byte of its own, beside a constant part: an empty name takes one byte on the wire and, in
// a structure, many here.
const (
	amplified  = 100
	atAllTimes = 1 << 20
)

// FuzzAnswer gives any bytes as an answer. What passes is read by franz-go, in memory and time that its length bounds.
func FuzzAnswer(f *testing.F) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, key := range asked {
		resp := kmsg.ResponseForKey(int16(key))
		for _, version := range []int16{0, resp.MaxVersion() / 2, resp.MaxVersion()} {
			resp.SetVersion(version)
			fill(reflect.ValueOf(resp).Elem(), random)
			f.Add(int16(key), version, resp.AppendTo(header(resp)))
		}
	}
	f.Fuzz(func(t *testing.T, key, version int16, b []byte) {
		if kafka.CheckAnswer(key, version, b) != nil {
			return
		}
		resp := kmsg.ResponseForKey(key)
		resp.SetVersion(version)
		if key == int16(kmsg.ApiVersions) && len(b) > 2 && b[1] == 35 {
			resp.SetVersion(0)
		}
		if header(resp) != nil {
			if b[0] != 0 {
				return // tags of the header, which are not looked at
			}
			b = b[1:]
		}
		took, bytes := measured(func() { _ = resp.ReadFrom(b) })
		if took > time.Second || bytes > uint64(amplified*len(b)+atAllTimes) {
			t.Fatalf("%d bytes took %v and %d bytes of memory", len(b), took, bytes)
		}
	})
}

// measured is how long something takes, and how much memory it asks for in all.
func measured(f func()) (time.Duration, uint64) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	f()
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	return took, after.TotalAlloc - before.TotalAlloc
}
