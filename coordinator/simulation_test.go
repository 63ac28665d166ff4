package coordinator_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kferry/kferry/coordinator"
	"github.com/kferry/kferry/shared/lease"
	"github.com/kferry/kferry/shared/spec"
)

// These are hours of traffic in a model of workers, with the decisions that coordinators make: how many there are over time, how long
// records wait, and what that costs. The README has its table and plot.

const (
	mib        = 1 << 20
	simRecord  = 1 << 10 // bytes
	simWorker  = 20 * mib
	simPart    = 8 * mib // that one partition can be copied at, however many workers there are
	kedaPolls  = 30      // seconds
	startTakes = 8       // seconds from being wanted to the first lease
)

// traffic is what comes to each partition in one second.
type traffic func(second int, random *rand.Rand, arrive func(partition int, bytes float64))

type scenario struct {
	name       string
	hours      float64
	partitions int
	comes      traffic
	turns      int // most changes of direction
	waits      int // seconds that a record waits at most
	dearer     bool
}

var scenarios = []scenario{
	{name: "a burst: 60 GiB within a minute", hours: 2, partitions: 64, turns: 3, waits: 500, comes: func(s int, _ *rand.Rand, arrive func(int, float64)) {
		if s >= 600 && s < 660 {
			for p := range 64 {
				arrive(p, 16*mib)
			}
		}
	}},
	{name: "bursts of 5 GiB every 3 minutes", hours: 4, partitions: 64, turns: 1, waits: 150, comes: func(s int, _ *rand.Rand, arrive func(int, float64)) {
		if s%180 < 10 {
			for p := range 64 {
				arrive(p, 8*mib)
			}
		}
	}},
	{name: "a trickle: a record every 20 s", hours: 8, partitions: 12, turns: 1, waits: 60, comes: func(s int, random *rand.Rand, arrive func(int, float64)) {
		if s%20 == 0 {
			arrive(random.IntN(12), simRecord)
		}
	}},
	{name: "a record every 30 minutes", hours: 8, partitions: 12, turns: 2 * 16, waits: 60, comes: func(s int, random *rand.Rand, arrive func(int, float64)) {
		if s%1800 == 600 {
			arrive(random.IntN(12), simRecord)
		}
	}},
	{name: "a day: 1 to 150 MiB/s and back, with noise", hours: 24, partitions: 200, turns: 5, waits: 130, comes: func(s int, random *rand.Rand, arrive func(int, float64)) {
		wave := 1 + 149*(1-math.Cos(2*math.Pi*float64(s)/86400))/2
		rate := wave * mib * (0.7 + 0.6*random.Float64())
		for p := range 200 {
			arrive(p, rate/200)
		}
	}},
	{name: "5,000 partitions, 60 MiB/s, most of it to few", hours: 2, partitions: 5000, turns: 3, waits: 130, comes: func(s int, random *rand.Rand, arrive func(int, float64)) {
		for range 200 { // the n-th is met about half as often as the n/2-th
			arrive(int(5000*math.Pow(random.Float64(), 3)), 0.3*mib*2*random.Float64())
		}
	}},
}

// run is what came of a scenario.
type run struct {
	workers, backlog []int // by second: workers ready, bytes
	desired          []int
	most             int
	longest          int           // seconds that a record waited
	hours            float64       // of workers, from their start
	turns            int           // changes of direction
	soonest          time.Duration // from more being desired to fewer
}

// play plays a scenario with a fixed number of workers, or where that is 0, with as many as the decisions say.
func (s scenario) play(fixed int) run {
	settings := spec.Scale{Max: 20, Drain: 2 * time.Minute, Rate: 50 * mib, Down: 5 * time.Minute, Idle: 2 * time.Minute}
	random := rand.New(rand.NewPCG(1, 2))
	seconds := int(s.hours * 3600)
	var (
		behind            = make([]float64, s.partitions)
		touched           = make([]int, s.partitions) // when the lease of a partition ends
		came, copied, end float64
		arrivals          = make([]float64, seconds) // came, by second
		waits             int                        // second of which the oldest waiting record is
		decision          coordinator.Decision
		tempo             lease.Tempo
		replicas          []int // the second in which each is ready
		r                 run
		up                = time.Duration(math.MinInt64)
		direction         int
	)
	r.soonest = time.Duration(math.MaxInt64)
	epoch := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range fixed {
		replicas = append(replicas, -i-1)
	}
	for second := range seconds {
		s.comes(second, random, func(p int, bytes float64) {
			behind[p] += bytes
			came += bytes
			touched[p] = second + 5
		})
		arrivals[second] = came
		end = math.Floor(came / simRecord)
		ready := 0
		for _, at := range replicas {
			if at <= second {
				ready++
			}
		}
		done := copyOn(behind, float64(ready)*simWorker, touched, second)
		copied += done
		for waits < second && arrivals[waits] <= copied+1 {
			waits++
		}
		r.longest = max(r.longest, second-waits)
		held, partitions, bytes := 0, 0, 0.0
		for p, b := range behind {
			if b > 0 {
				partitions, bytes = partitions+1, bytes+b
			}
			if b > 0 || touched[p] > second {
				held++
			}
		}
		if ready > 0 && done > 0 && second%10 == 0 { // a stint
			stint := lease.Stint{}
			if partitions > 0 {
				stint.Rate, stint.Full = done/float64(ready), partitions >= 4*ready
			}
			tempo = tempo.With(stint)
		}
		if fixed == 0 && second%2 == 0 {
			now := epoch.Add(time.Duration(second) * time.Second)
			depth := lease.Depth{Held: held, At: now}
			if ready == 0 {
				depth.Waiting, depth.Held = held, 0
			}
			was := decision.Desired
			decision = coordinator.Circumstances{Scale: settings, Slots: 1000, Depth: depth, Tempo: tempo, Flows: map[string]coordinator.Load{"A->B": {
				At: now, Partitions: partitions, AtOnce: partitions, Bytes: bytes, Demand: bytes / settings.Drain.Seconds(),
				End: int64(end), Counted: s.partitions, Record: simRecord,
			}}}.Decide(decision)
			at := now.Sub(epoch)
			if step := decision.Desired - was; step != 0 {
				if turned := sign(step); turned != direction && direction != 0 {
					r.turns++
				}
				if direction = sign(step); step > 0 {
					up = at
				} else {
					r.soonest = min(r.soonest, at-up)
				}
			}
		}
		if fixed == 0 && second%kedaPolls == 7 {
			for len(replicas) < decision.Desired {
				replicas = append(replicas, second+startTakes)
			}
			replicas = replicas[:decision.Desired]
		}
		r.hours += float64(len(replicas)) / 3600
		r.most = max(r.most, ready)
		r.workers, r.backlog, r.desired = append(r.workers, len(replicas)), append(r.backlog, int(bytes)), append(r.desired, decision.Desired)
	}
	return r
}

// copyOn copies for a second: all partitions alike, none faster than one can be.
func copyOn(behind []float64, capacity float64, touched []int, second int) (done float64) {
	quick := make([]float64, len(behind))
	for range 3 {
		active := 0
		for p, b := range behind {
			if b > 0 && quick[p] < simPart {
				active++
			}
		}
		if active == 0 || capacity < 1 {
			break
		}
		share := capacity / float64(active)
		for p, b := range behind {
			if some := min(b, share, simPart-quick[p]); b > 0 && some > 0 {
				behind[p] -= some
				quick[p] += some
				capacity -= some
				done += some
				touched[p] = second + 5
			}
		}
	}
	return done
}

func sign(n int) int {
	if n < 0 {
		return -1
	}
	return 1
}

func TestWorkersFollowTheTraffic(t *testing.T) {
	var rows []string
	var plots []run
	for _, s := range scenarios {
		scaled := s.play(0)
		fixed := s.play(max(1, scaled.most))
		rows = append(rows, fmt.Sprintf("| %s | %d | %s | %s | %.1f | %.1f | %d |",
			s.name, scaled.most, wait(scaled.longest), wait(fixed.longest), scaled.hours, fixed.hours, scaled.turns))
		plots = append(plots, scaled)
		if scaled.turns > s.turns {
			t.Errorf("%s: %d changes of direction", s.name, scaled.turns)
		}
		if scaled.soonest < 2*time.Minute {
			t.Errorf("%s: more and then fewer within %s", s.name, scaled.soonest)
		}
		if scaled.longest > s.waits {
			t.Errorf("%s: a record waits for %d s", s.name, scaled.longest)
		}
		if scaled.hours > fixed.hours {
			t.Errorf("%s: %.1f hours of workers, a fleet of %d takes %.1f", s.name, scaled.hours, scaled.most, fixed.hours)
		}
	}
	sameInReadme(t, rows)
	plot := draw(plots)
	if *regenerate {
		if err := os.WriteFile("testdata/scale.svg", plot, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if was, err := os.ReadFile("testdata/scale.svg"); err != nil || !alike(was, plot) {
		t.Errorf("testdata/scale.svg shows something else than the simulation (%v); -regenerate draws it anew", err)
	}
}

var figure = regexp.MustCompile(`\d+(\.\d)?`)

// alike compares two plots as they look: the last digit of a place may be another one where the processor multiplies and adds in one step.
func alike(a, b []byte) bool {
	if !bytes.Equal(figure.ReplaceAll(a, nil), figure.ReplaceAll(b, nil)) {
		return false
	}
	others := figure.FindAll(b, -1)
	for i, text := range figure.FindAll(a, -1) {
		one, err1 := strconv.ParseFloat(string(text), 64)
		other, err2 := strconv.ParseFloat(string(others[i]), 64)
		if err1 != nil || err2 != nil || math.Abs(one-other) > 0.11 {
			return false
		}
	}
	return true
}

func wait(seconds int) string {
	return strings.TrimSuffix((time.Duration(seconds)*time.Second).String(), "m0s") + strings.Repeat("m", btoi(seconds >= 60 && seconds%60 == 0))
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// sameInReadme compares the table of scenarios.
func sameInReadme(t *testing.T, rows []string) {
	t.Helper()
	const name = "../README.md"
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), "\n| traffic |")
	head, rest, also := strings.Cut(rest, "---: |\n")
	table, after, ends := strings.Cut(rest, "\n\n")
	if !found || !also || !ends {
		t.Fatal("README has no table of traffic")
	}
	want := strings.Join(rows, "\n")
	if *regenerate {
		text := before + "\n| traffic |" + head + "---: |\n" + want + "\n\n" + after
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if table != want {
		t.Errorf("README has\n%s\nwant\n%s", table, want)
	}
}

// draw plots each run: what waits in grey, and the workers that run.
func draw(runs []run) []byte {
	const width, height, gap, columns, points = 360.0, 110.0, 46.0, 2, 180
	var b bytes.Buffer
	lines := (len(runs) + columns - 1) / columns
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" font-family="sans-serif" font-size="11">`+"\n",
		columns*(width+gap), float64(lines)*(height+gap))
	fmt.Fprintln(&b, `<rect width="100%" height="100%" fill="#fff"/>`)
	for i, r := range runs {
		x, y := float64(i%columns)*(width+gap)+gap/2, float64(i/columns)*(height+gap)+gap/2
		most, fullest := 1, 1
		for s := range r.workers {
			most, fullest = max(most, r.workers[s]), max(fullest, r.backlog[s])
		}
		at := func(second int, share float64) string {
			return fmt.Sprintf("%.1f,%.1f", x+width*float64(second)/float64(len(r.workers)), y+height*(1-share))
		}
		fmt.Fprintf(&b, `<text x="%.0f" y="%.0f">%s</text>`+"\n", x, y-5, scenarios[i].name)
		area := []string{at(0, 0)}
		for p := range points {
			from, to := p*len(r.backlog)/points, (p+1)*len(r.backlog)/points
			fullestHere := 0
			for _, bytes := range r.backlog[from:to] {
				fullestHere = max(fullestHere, bytes)
			}
			area = append(area, at(from, float64(fullestHere)/float64(fullest)))
		}
		area = append(area, at(len(r.backlog), 0))
		fmt.Fprintf(&b, `<polygon points="%s" fill="#ccc"/>`+"\n", strings.Join(area, " "))
		line := []string{at(0, 0)}
		for s := 1; s < len(r.workers); s++ {
			if r.workers[s] != r.workers[s-1] {
				line = append(line, at(s, float64(r.workers[s-1])/float64(most)), at(s, float64(r.workers[s])/float64(most)))
			}
		}
		line = append(line, at(len(r.workers), float64(r.workers[len(r.workers)-1])/float64(most)))
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="#06c" stroke-width="1.5"/>`+"\n", strings.Join(line, " "))
		fmt.Fprintf(&b, `<path d="M%s H%.1f" stroke="#888"/><text x="%.0f" y="%.0f" fill="#06c">%d workers</text><text x="%.0f" y="%.0f" text-anchor="end" fill="#888">%.0f h, at most %s wait</text>`+"\n",
			at(0, 0), x+width, x+4, y+11, most, x+width, y+11, float64(len(r.workers))/3600, amount(fullest))
	}
	fmt.Fprintln(&b, `</svg>`)
	return b.Bytes()
}

func amount(bytes int) string {
	switch {
	case bytes >= 1<<30:
		return fmt.Sprintf("%.0f GiB", float64(bytes)/(1<<30))
	case bytes >= mib:
		return fmt.Sprintf("%.0f MiB", float64(bytes)/mib)
	}
	return fmt.Sprintf("%.0f KiB", float64(bytes)/1024)
}
