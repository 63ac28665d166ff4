package coordinator

import (
	"time"

	"github.com/kferry/kferry/shared/kafka"
)

// maxMarks bounds what is remembered of a partition that lags.
const maxMarks = 32

// marks tell how long the oldest record that waits in a partition has been waiting, from nothing but ends seen over time: a record
// below a mark's end was there when the mark was set. So no record is read, whatever it says about its own time.
type marks struct {
	partitions map[kafka.TopicPartition][]mark
}

// A mark says that the source reached end at the time seen, and that records between the mark before and end have waited since then.
type mark struct {
	end  int64
	seen time.Time
}

// observe takes what a plan found, and returns the partitions that lag already when they are seen for the first time: how long they
// did so is for the record at their cursor to say, through since.
func (m *marks) observe(partitions []Partition, now time.Time) (unknown []Partition) {
	seen := make(map[kafka.TopicPartition][]mark, len(partitions))
	for _, p := range partitions {
		if p.State == Gone {
			continue
		}
		list, known := m.partitions[p.Source()]
		if !known && p.Lag > 0 {
			unknown = append(unknown, p)
		}
		seen[p.Source()] = advance(list, p, now)
	}
	m.partitions = seen
	return unknown
}

// advance drops the marks that the cursor has passed, and sets one where the source has grown.
func advance(list []mark, p Partition, now time.Time) []mark {
	for len(list) > 0 && list[0].end <= p.Offset {
		list = list[1:]
	}
	if p.Lag > 0 && (len(list) == 0 || list[len(list)-1].end < p.End) {
		list = append(list, mark{p.End, now})
	}
	if len(list) > maxMarks {
		list = thin(list)
	}
	return list
}

// thin joins marks in twos. The joined one keeps the older time: to say too much is the safe side of an alert.
func thin(list []mark) []mark {
	var half []mark
	for i := 0; i < len(list); i += 2 {
		last := min(i+1, len(list)-1)
		half = append(half, mark{list[last].end, list[i].seen})
	}
	return half
}

// since corrects the first mark of a partition by the time of the record at its cursor.
func (m *marks) since(tp kafka.TopicPartition, then time.Time) {
	if list := m.partitions[tp]; len(list) > 0 && then.Before(list[0].seen) {
		list[0].seen = then
	}
}

// oldest is how long the oldest record has been waiting, over all partitions.
func (m *marks) oldest(now time.Time) time.Duration {
	var age time.Duration
	for _, list := range m.partitions {
		if len(list) > 0 {
			age = max(age, now.Sub(list[0].seen))
		}
	}
	return age
}
