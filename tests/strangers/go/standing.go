package main

// What a partition remembers since policy v3: schemas/meaning.md, "Bases", "Shares", "Guides".

import (
	"crypto/ed25519"
	"math"
	"math/bits"
)

const (
	remembered = 8 // versions of a device's accepted updates, and its last scored ones
	liveMax    = 10_000
	guideBytes = 16_384 // of a guide beside its direction
)

// Share is what a device had of the last versions, as of one.
type Share struct {
	version, tokens, accepted, refused, scored int64
}

// total is the accepted updates of all remembered versions.
func (one *Share) total() int64 {
	var total int64
	for age := 0; age < remembered; age++ {
		total += one.accepted >> (4 * age) & 15
	}
	return total
}

// share is a device's entry as it stands now; nil where nobody's is counted.
func (p *Partition) share(device string) *Share {
	limits := p.policy.Shares
	if limits.PerVersion == 0 {
		return nil
	}
	known, there := p.shares[device]
	if !there {
		return &Share{version: p.version, tokens: limits.SavedMax}
	}
	passed := min64(p.version-known.version, remembered) // more change nothing
	return &Share{
		p.version, min64(limits.SavedMax, known.tokens+limits.PerVersion*passed),
		known.accepted << (4 * passed) & (1<<(4*remembered) - 1), known.refused, known.scored,
	}
}

// scored writes down a scored update of a device.
func (p *Partition) scored(device string, share *Share, accepted bool) {
	share.tokens--
	share.refused = share.refused << 1 & (1<<remembered - 1)
	if !accepted {
		share.refused |= 1
	} else if share.accepted&15 < 15 {
		share.accepted++
	}
	share.scored = min64(share.scored+1, remembered)
	p.shares[device] = share
	if most := p.policy.Defence.QuarantineRefusals; most > 0 && int64(bits.OnesCount64(uint64(share.refused))) >= most {
		p.quarantined[device] = math.MaxInt64
		if share.version <= math.MaxInt64-p.policy.Defence.QuarantineVersions {
			p.quarantined[device] = share.version + p.policy.Defence.QuarantineVersions
		}
		share.refused, share.scored = 0, 0
	}
}

// secondsOld is how long ago a base was superseded; false where it is not too old in versions, or was never seen.
func (p *Partition) secondsOld(base, timestampMs int64) (float64, bool) {
	since, there := p.superseded[base]
	if !there || base >= p.version-p.policy.Staleness.VersionsMax {
		return 0, false
	}
	return float64(timestampMs-since) / 1000, true
}

// supersede is what a barrier to a version does to the bases before it. The version itself is not among the models yet.
func (p *Partition) supersede(version, timestampMs int64) {
	limits := p.policy.Staleness
	if limits.SecondsMax <= 0 {
		p.superseded = map[int64]int64{}
		return
	}
	for base := range p.models {
		if _, there := p.superseded[base]; !there && base < version {
			p.superseded[base] = timestampMs
		}
	}
	for _, base := range sortedVersions(p.superseded) {
		behind, age := version-base, float64(timestampMs-p.superseded[base])/1000
		young := behind <= limits.VersionsMax || age <= limits.SecondsMax
		if base >= p.floor && young && behind <= liveMax {
			break
		}
		delete(p.superseded, base)
	}
}

// oldest is the oldest base that may be welcome.
func (p *Partition) oldest() int64 {
	oldest := p.version - p.policy.Staleness.VersionsMax
	for base := range p.superseded {
		oldest = min64(oldest, base)
	}
	return max64(p.floor, oldest)
}

// forget drops what is of bases that are not welcome any more.
func (p *Partition) forget() {
	oldest := p.oldest()
	for version := range p.models {
		if version < oldest {
			delete(p.models, version)
		}
	}
	for version := range p.counted {
		if version < oldest {
			delete(p.counted, version)
		}
	}
	for version := range p.superseded {
		if version < oldest {
			delete(p.superseded, version)
		}
	}
}

// forgetDevices drops the entries of devices that were silent for long, and quarantines that are over; all of them under a
// policy that knows neither.
func (p *Partition) forgetDevices() {
	if !p.policy.countsShares() {
		clear(p.shares)
		clear(p.quarantined)
	}
	for device, one := range p.shares {
		if one.version <= p.version-remembered {
			delete(p.shares, device)
		}
	}
	for device, until := range p.quarantined {
		if until <= p.version {
			delete(p.quarantined, device)
		}
	}
}

// Guide is a direction that a guardian of the task signed.
type Guide struct {
	version   int64
	model     string
	direction *Direction
	signer    string
}

// readGuide reads an object; nil where it is no guide of the task.
func (registry *Registry) readGuide(data []byte, trust *Trust, task string, layout *Layout) *Guide {
	if len(data) > layout.W+8*len(layout.Weights)+guideBytes {
		return nil
	}
	one, err := registry.openEnvelope(data, trust.canonical)
	if err != nil || one.Kind != "Guide" {
		return nil
	}
	signer, err := trust.identify(one.Certificate)
	if err != nil || signer.Role != "guardian" || len(one.Signature) != ed25519.SignatureSize {
		return nil
	}
	if !ed25519.Verify(signer.Key, signedBytes(trust.named, one.Kind, one.Schema, one.Payload), one.Signature) {
		return nil
	}
	record, err := registry.open(one.Payload, one.Schema, trust.canonical)
	if err != nil || record["task"] != task {
		return nil
	}
	file := record["direction"].([]byte)
	direction, err := readDirection(file, layout)
	if err != nil || string(directionFile(direction)) != string(file) {
		return nil
	}
	for _, scale := range direction.scales {
		if !finite(scale) || scale < 0 {
			return nil
		}
	}
	if !(1e-100 <= direction.norm && direction.norm <= 1e100) {
		return nil
	}
	return &Guide{record["version"].(int64), record["model_sha256"].(string), direction, trust.certificateName(signer.Serial)}
}

// takeUsual is what a barrier says is usual, and its guide, if that is young and of a model that this log knows.
func (p *Partition) takeUsual(barrier Record) {
	p.usual, p.guide, p.guideSHA256 = Usual{}, nil, ""
	if norm, there := barrier["usual_norm"]; there {
		p.usual = Usual{norm.(float64), barrier["usual_cosine"].(int64), barrier["usual_share"].(int64)}
	}
	name, there := barrier["guide_sha256"]
	if !there || name == "" {
		return
	}
	guide := p.registry.readGuide(p.object(name.(string)), p.trust, p.task, p.layout)
	if guide == nil || guide.version > p.version || p.version-guide.version > p.policy.Defence.GuideVersionsMax {
		return
	}
	if model, there := p.models[guide.version]; there && model == guide.model && !p.revoked[guide.signer] {
		p.guide, p.guideSHA256 = guide.direction, name.(string)
	}
}
