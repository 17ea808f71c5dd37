package main

// Edges: what a window of an edge says in the log above it, and whether it counts there. schemas/meaning.md, "Edges".

import (
	"math"
	"math/big"
	"sort"
	"strings"
)

// EdgePlace is how far an edge has come in a partition, and how many updates of it counted at one version.
type EdgePlace struct {
	sequence          int64
	sha256            string
	version, accepted int64
}

func (one EdgePlace) acceptedAt(version int64) int64 {
	if one.version != version {
		return 0
	}
	return one.accepted
}

// heard is a window of an edge as a record of the log above says it; sums is nil where it accepted nothing.
type heard struct {
	Record
	sha256 string
	sums   []int64
}

func (one *heard) number(name string) int64 { return one.Record[name].(int64) }

const (
	edgeLevels   = 8
	roundedUnits = 129
	shareUnit    = 840
	leastCount   = 105
	squaresMax   = 64
)

var edgeBuckets = map[string][2]int64{"norms": {0, 16375}, "cosines": {-64, 64}, "shares": {1, 255}}

func (policy *Policy) knowsEdges() bool { return policy.Edges.UpdatesMax > 0 }

func parentOf(edge string) string {
	at := strings.LastIndexByte(edge, '.')
	if at < 0 {
		return ""
	}
	return edge[:at]
}

// rootOf is the region with a CA that a name is or is below; "" for none.
func (trust *Trust) rootOf(name string) string {
	for name != "" && trust.authorities[name] == nil {
		name = parentOf(name)
	}
	return name
}

// authorityOf is the CA that vouches for those of a region; of an edge that of the region above, where edges are known.
func (trust *Trust) authorityOf(region string) (*x509Certificate, string) {
	root := region
	if trust.edges {
		root = trust.rootOf(region)
	}
	if root == "control" && region != "control" {
		return nil, ""
	}
	return trust.authorities[root], root
}

// hear reads an EdgeAggregate that an edge signed.
func (p *Partition) hear(record Record, edge string) (*heard, *refusal) {
	unreadable := func(flaw string) (*heard, *refusal) { return nil, undecodable(349, edge, flaw) }
	if said := record["edge"].(string); said != edge {
		return nil, &refusal{"wrong_region", why(226, cut(said, 64), edge)}
	}
	if said := record["region"].(string); said != parentOf(edge) {
		return nil, &refusal{"wrong_region", why(226, cut(said, 64), edge)}
	}
	payload := record["aggregate"].([]byte)
	schema, err := p.registry.schemaIn(payload)
	if err != nil || schema.Name != "RegionalAggregate" || schema.Version != 4 {
		return unreadable("aggregate")
	}
	window, err := p.registry.open(payload, schema, p.trust.canonical)
	if err != nil {
		return unreadable("aggregate")
	}
	width, data, accepted := record["width"].(int64), record["sums"].([]byte), window["accepted"].(int64)
	if width < 1 || width > 8 {
		return unreadable("width")
	}
	if int64(len(data))%width != 0 || (len(data) > 0) != (accepted != 0) {
		return unreadable("sums")
	}
	sums := unpacked(data, int(width))
	if int64(widthOf(sums)) != width {
		return unreadable("width")
	}
	named := ""
	if len(sums) > 0 {
		named = sha(sumsBytes(sums))
	}
	if window["sum_sha256"] != named {
		return unreadable("sha256")
	}
	return &heard{window, sha(payload), sums}, nil
}

func unpacked(data []byte, width int) []int64 {
	var sums []int64
	for ; len(data) > 0; data = data[width:] {
		number := uint64(0)
		for i := width - 1; i >= 0; i-- {
			number = number<<8 | uint64(data[i])
		}
		shift := uint(64 - 8*width)
		sums = append(sums, int64(number<<shift)>>shift)
	}
	return sums
}

// widthOf is the fewest bytes that hold each number; 1 for none.
func widthOf(sums []int64) int {
	width := 1
	for _, one := range sums {
		for one<<uint(64-8*width)>>uint(64-8*width) != one {
			width++
		}
	}
	return width
}

// edge judges a window of an edge, and counts it.
func (p *Partition) edge(verdict *Verdict, record Record, signer *Identity, as arrived) {
	edge := signer.Region
	verdict.DeviceID = edge
	window, refused := p.hear(record, edge)
	if refused != nil {
		verdict.Outcome, verdict.Why = refused.Outcome, refused.Why
		return
	}
	base := window.number("version")
	verdict.BaseVersion = base
	place, home := p.edges[edge], partitionOf(edge, p.total)
	sequence := window.number("sequence")
	switch {
	case p.revoked[edge]:
		verdict.refuse("revoked", 301, edge)
	case p.revoked[p.trust.certificateName(signer.Serial)]:
		verdict.refuse("revoked", 302, signer.Serial)
	case record["task"] != p.task:
		verdict.refuse("wrong_task", 303, record["task"], p.task)
	case record["region"] != p.region:
		verdict.refuse("wrong_region", 304, record["region"], p.region)
	case home != p.partition:
		verdict.refuse("wrong_partition", 305, home, p.partition)
	case window.Record["task"] != record["task"] || window.Record["region"] != edge || window.number("partition") != 0:
		verdict.refuse("bad_aggregate", 343, edge)
	case sequence < place.sequence:
		verdict.refuse("duplicate", 341, edge, sequence, place.sequence)
	case sequence > place.sequence || window.Record["previous_sha256"] != place.sha256:
		verdict.refuse("bad_aggregate", 342, edge, sequence, place.sequence)
	default:
		place.sequence, place.sha256 = sequence+1, window.sha256
		p.edges[edge] = place
		p.chains.add(edge, window.sha256)
		if p.wrongBase(verdict, base, record["model_sha256"].(string), as.timestampMs); verdict.Outcome == "" {
			p.edgeContent(verdict, edge, window, as)
		}
	}
}

// edgeContent judges a window in its turn, of a base that is welcome.
func (p *Partition) edgeContent(verdict *Verdict, edge string, window *heard, as arrived) {
	place, base, most := p.edges[edge], window.number("version"), p.policy.Edges.UpdatesMax
	said := new(big.Int).Add(big.NewInt(place.acceptedAt(p.version)), big.NewInt(window.number("accepted")))
	policy := window.Record["policy_sha256"].(string)
	switch {
	case policy != p.policy.SHA256:
		verdict.refuse("bad_aggregate", 344, edge, cut(policy, 12), cut(p.policy.SHA256, 12))
		return
	case said.Cmp(big.NewInt(most)) > 0:
		if !said.IsInt64() {
			said.SetInt64(math.MaxInt64)
		}
		verdict.refuse("over_share", 345, edge, said.Int64(), most)
		return
	}
	flaw := p.formFlaw(window)
	if flaw != "" {
		verdict.refuse("bad_aggregate", 346, edge, flaw)
		return
	}
	if section := p.tooLong(window); section != "" {
		verdict.refuse("bad_aggregate", 347, edge, section)
		return
	}
	late := p.version - base
	if late > 0 && len(p.layout.Buffers) > 0 {
		verdict.refuse("too_stale", 348, edge, base, p.version)
		return
	}
	place.accepted, place.version = said.Int64(), p.version
	p.edges[edge] = place
	weights := p.policy.Staleness.Weights
	verdict.refuse("aggregated", 340, edge, window.number("sequence"), window.number("accepted"))
	verdict.Staleness, verdict.Weight, verdict.Clip = late, weights[min64(late, int64(len(weights)-1))], 1
	if window.sums != nil {
		p.addEdge(verdict, window, as)
	}
}

// addEdge adds what a window accepted to the open one.
func (p *Partition) addEdge(verdict *Verdict, heard *heard, as arrived) {
	window, added := p.window, int64(0)
	if window.sums == nil {
		window.sums = make([]int64, p.layout.sumElements())
	}
	for i, one := range heard.sums {
		window.sums[i] += scaled(one, verdict.Weight)
	}
	for _, each := range heard.Record["bases"].([]any) {
		row := each.(Record)
		base, left := row["base"].(int64), weightAfter(row["weight"].(int64), verdict.Weight)
		known := window.bases[base]
		window.bases[base] = baseCount{known.accepted + row["accepted"].(int64), known.weight + left}
		added += left
	}
	accepted := heard.number("accepted")
	if window.buckets[0] == nil {
		window.buckets[0] = &[2]int64{}
	}
	window.buckets[0][0] += accepted
	window.buckets[0][1] += added
	window.edgeUpdates += accepted
	window.weight += added
	window.staleness += heard.number("staleness_total") + accepted*verdict.Staleness
	window.stalenessMax = max64(window.stalenessMax, heard.number("staleness_max")+verdict.Staleness)
	window.bytesTotal += as.size
	for name, counts := range map[string]map[int64]int64{"norms": window.tally.norms, "cosines": window.tally.cosines, "shares": window.tally.shares} {
		for _, pair := range histogramIn(heard.Record[name]) {
			counts[pair[0]] += pair[1]
		}
	}
	window.contributors.Write(contributor(verdict.Offset, added, 1, as.signature))
}

// accepted is how many updates of the window count, of this log and of edges'.
func (one *openWindow) accepted() int64 { return one.counts["accepted"] + one.edgeUpdates }

func whole(number int64) *big.Int { return big.NewInt(number) }

// formFlaw is the first of a window's totals that no log comes to; "" for none.
func (p *Partition) formFlaw(window *heard) string {
	switch {
	case !countsFit(window):
		return "counts"
	case !p.basesFit(window):
		return "bases"
	case !stalenessFits(window):
		return "staleness"
	case !bucketsFit(window):
		return "buckets"
	case !p.histogramsFit(window):
		return "histograms"
	case window.sums != nil && len(window.sums) != p.layout.sumElements():
		return "elements"
	case window.sums != nil && !p.buffersFit(window):
		return "buffers"
	default:
		return ""
	}
}

func countsFit(window *heard) bool {
	for _, name := range []string{"accepted", "weight_total", "staleness_total", "staleness_max", "update_bytes"} {
		if window.number(name) < 0 {
			return false
		}
	}
	counts, own, below := window.Record["counts"].(Map), int64(0), int64(0)
	for i, outcome := range counts.Keys {
		count := counts.Values[i].(int64)
		switch {
		case count < 0:
			return false
		case outcome == "accepted":
			own = count
		case outcome == "aggregated":
			below = count
		}
	}
	accepted := window.number("accepted")
	return accepted == own || below > 0 && accepted > own
}

func rowsOf(field any) []Record {
	var found []Record
	for _, each := range field.([]any) {
		found = append(found, each.(Record))
	}
	return found
}

// countOf is how often an outcome is counted.
func countOf(counts Map, outcome string) int64 {
	for i, name := range counts.Keys {
		if name == outcome {
			return counts.Values[i].(int64)
		}
	}
	return 0
}

func (p *Partition) basesFit(window *heard) bool {
	version, last, weights := window.number("version"), int64(-1), p.policy.Staleness.Weights
	oldest := max64(max64(p.floor, p.oldest()-p.policy.Staleness.VersionsMax), p.version-liveMax)
	accepted, weighs := new(big.Int), new(big.Int)
	for _, row := range rowsOf(window.Record["bases"]) {
		base, many, weight := row["base"].(int64), row["accepted"].(int64), row["weight"].(int64)
		if base < 0 || base > version {
			return false
		}
		each := int64(weightOne)
		if countOf(window.Record["counts"].(Map), "aggregated") == 0 {
			each = weights[min64(version-base, int64(len(weights)-1))]
		}
		most := new(big.Int).Mul(whole(many), whole(each))
		if base <= last || base < oldest || base > version || many < 1 || weight < 1 || whole(weight).Cmp(most) > 0 {
			return false
		}
		last = base
		accepted.Add(accepted, whole(many))
		weighs.Add(weighs, whole(weight))
	}
	return accepted.Cmp(whole(window.number("accepted"))) == 0 && weighs.Cmp(whole(window.number("weight_total"))) == 0
}

func stalenessFits(window *heard) bool {
	total, most := new(big.Int), int64(0)
	for _, row := range rowsOf(window.Record["bases"]) {
		late := window.number("version") - row["base"].(int64)
		total.Add(total, new(big.Int).Mul(whole(row["accepted"].(int64)), whole(late)))
		most = max64(most, late)
	}
	return total.Cmp(whole(window.number("staleness_total"))) == 0 && most == window.number("staleness_max")
}

func bucketsFit(window *heard) bool {
	rows := rowsOf(window.Record["buckets"])
	return len(rows) == 1 && rows[0]["accepted"] == window.Record["accepted"] && rows[0]["weight"] == window.Record["weight_total"]
}

func (p *Partition) histogramsFit(window *heard) bool {
	accepted, totals := window.number("accepted"), map[string]*big.Int{}
	for name, span := range edgeBuckets {
		rows := histogramIn(window.Record[name])
		if int64(len(rows)) > accepted {
			return false
		}
		totals[name] = new(big.Int)
		for i, pair := range rows {
			if i > 0 && pair[0] <= rows[i-1][0] || pair[0] < span[0] || pair[0] > span[1] || pair[1] < leastCount {
				return false
			}
			totals[name].Add(totals[name], whole(pair[1]))
		}
	}
	shares := histogramIn(window.Record["shares"])
	counted := new(big.Int).Mul(whole(accepted), whole(shareUnit))
	if p.policy.Shares.PerVersion > 0 {
		updates := new(big.Int)
		for _, pair := range shares {
			unit := shareCount(pair[0])
			if pair[1]%unit != 0 {
				return false
			}
			updates.Add(updates, whole(pair[1]/unit))
		}
		if updates.Cmp(whole(accepted)) != 0 {
			return false
		}
		counted = totals["shares"]
	} else if len(shares) > 0 {
		return false
	}
	times := int64(1)
	if p.policy.Defence.UsualNormBy == "squares" {
		times = squaresMax
	}
	return totals["norms"].Cmp(new(big.Int).Mul(counted, whole(times))) <= 0 && totals["cosines"].Cmp(counted) <= 0
}

func (p *Partition) buffersFit(window *heard) bool {
	most := new(big.Int).Lsh(whole(window.number("accepted")), 32)
	furthest := new(big.Int).Lsh(whole(1<<24-1), 253)
	furthest.Mul(furthest, whole(window.number("weight_total")))
	at := p.layout.W
	for _, spec := range p.layout.Buffers {
		for n := 0; n < spec.size(); n++ {
			digits := window.sums[at : at+10]
			at += 10
			for _, digit := range digits {
				if new(big.Int).Abs(whole(digit)).Cmp(most) > 0 {
					return false
				}
			}
			total := joined(digits)
			if new(big.Int).Abs(total).Cmp(furthest) > 0 || spec.Nonnegative && total.Sign() < 0 {
				return false
			}
		}
	}
	return true
}

// tooLong is the section whose sums are longer than so many clipped updates come to; "" for none.
func (p *Partition) tooLong(window *heard) string {
	if window.sums == nil {
		return ""
	}
	accepted, weighs := window.number("accepted"), window.number("weight_total")
	if isLonger(window.sums[:p.layout.W], p.policy.clipUnits(p.policy.Updates.NormClip), accepted, weighs) {
		return "weights"
	}
	control := window.sums[len(window.sums)-p.layout.C:]
	if len(control) > 0 && isLonger(control, p.policy.clipUnits(p.policy.Control.NormClip), accepted, weighs) {
		return "control"
	}
	return ""
}

// clipUnits is a norm in units of the sums, rounded up.
func (policy *Policy) clipUnits(norm float64) *big.Int {
	units, _ := new(big.Float).SetFloat64(math.Ceil(math.Ldexp(norm, policy.FixedPoint.Exponent))).Int(nil)
	return units
}

func isLonger(sums []int64, clip *big.Int, accepted, weighs int64) bool {
	weight := new(big.Int).Add(whole(weighs), new(big.Int).Mul(whole(edgeLevels), whole(accepted)))
	if most := new(big.Int).Mul(whole(accepted), whole(weightOne)); weight.Cmp(most) > 0 {
		weight = most
	}
	reach := new(big.Int).Mul(weight, clip)
	reach.Add(reach, whole(weightOne-1)).Rsh(reach, 16)
	bound := new(big.Int).Add(reach, new(big.Int).Rsh(reach, 50))
	bound.Add(bound, whole(1))
	rounded := new(big.Int).Mul(whole(roundedUnits), whole(accepted))
	largest := new(big.Int)
	for _, one := range sums {
		if length := new(big.Int).Abs(whole(one)); length.Cmp(largest) > 0 {
			largest = length
		}
	}
	if largest.Cmp(new(big.Int).Add(bound, rounded)) > 0 {
		return true
	}
	k := uint(max64(0, int64(largest.BitLen())-24))
	root := new(big.Int).Sqrt(whole(int64(len(sums))))
	root.Add(root, whole(1))
	rounded.Add(rounded, new(big.Int).Lsh(whole(1), k)).Mul(rounded, root)
	bound.Add(bound, rounded).Mul(bound, bound)
	squares := new(big.Int)
	for _, one := range sums {
		t := whole(one >> k)
		squares.Add(squares, t.Mul(t, t))
	}
	return squares.Lsh(squares, 2*k).Cmp(bound) > 0
}

// edgeRecords are the entries of a state, by edge.
func (p *Partition) edgeRecords() []any {
	found := []any{}
	for _, edge := range sortedKeys(p.edges) {
		one := p.edges[edge]
		found = append(found, Record{
			"edge": edge, "sequence": one.sequence, "sha256": one.sha256, "version": one.version, "accepted": one.accepted,
		})
	}
	return found
}

// chains has of every edge that was heard the hashes of its windows.
type chains map[string][]string

func (all chains) add(edge, sha256 string) { all[edge] = append(all[edge], sha256) }

// below walks down from a log: each window of an edge that it took is what the edge's own log gives.
func (a *auditor) below(above string, heard chains, policy *Policy, report *auditReport) {
	for _, edge := range sortedKeys(heard) {
		if !a.hasTopic("fl."+a.task+".updates."+edge, 0) {
			report.UnseenEdges = append(report.UnseenEdges, edge)
			continue
		}
		p := a.partition(Slot{edge, 0}, 1, policy)
		var closed []string
		parked := map[int64]*Parked{}
		if a.hasTopic("fl."+a.task+".aggregates."+edge, 0) {
			parked = a.parked(Slot{edge, 0}, a.topic("fl."+a.task+".updates."+edge, 0), a.published(Slot{edge, 0}))
		}
		for _, window := range a.replay(p, parked) {
			closed = append(closed, window.SHA256)
		}
		for sequence, sha256 := range heard[edge] {
			if sequence >= len(closed) || closed[sequence] != sha256 {
				a.problem("window %d of %s in %s is %s, which its own log does not give", sequence, edge, above, sha256)
			}
		}
		report.Edges++
		a.below(edge, p.chains, policy, report)
	}
	sort.Strings(report.UnseenEdges)
}

// replay folds a whole log.
func (a *auditor) replay(p *Partition, parked map[int64]*Parked) []*Window {
	var windows []*Window
	keep := func(_ Verdict, window *Window) {
		if window != nil {
			windows = append(windows, window)
		}
	}
	for _, one := range a.topic("fl."+a.task+".updates."+p.region, p.partition) {
		for p.next < one.offset { // a transaction's marker
			keep(p.take(nil, false, one.timestampMs, parked[p.next]))
		}
		keep(p.take(one.value, one.there, one.timestampMs, parked[one.offset]))
	}
	return windows
}
