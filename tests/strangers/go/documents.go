package main

// Genesis, policies, manifests: schemas/documents.md. Read strictly.

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"sort"
	"strings"
)

// Tensor is one tensor of a layout.
type Tensor struct {
	Name        string  `json:"name"`
	Shape       []int64 `json:"shape"`
	Section     string  `json:"section"`
	Dtype       string  `json:"dtype"`
	Nonnegative bool    `json:"nonnegative"`
}

func (one Tensor) size() int {
	size := 1
	for _, n := range one.Shape {
		size *= int(n)
	}
	return size
}

// Layout has the tensors of weights, of buffers, and of control variates, and how many elements each has.
type Layout struct {
	Weights, Buffers, Control []Tensor
	W, B, C                   int
}

func layoutOf(tensors []Tensor) *Layout {
	layout := &Layout{}
	for _, one := range tensors {
		switch one.Section {
		case "buffers":
			layout.Buffers = append(layout.Buffers, one)
			layout.B += one.size()
		case "control":
			layout.Control = append(layout.Control, one)
			layout.C += one.size()
		default:
			layout.Weights = append(layout.Weights, one)
			layout.W += one.size()
		}
	}
	return layout
}

func (layout *Layout) all() []Tensor {
	return append(append(append([]Tensor{}, layout.Weights...), layout.Buffers...), layout.Control...)
}

func (layout *Layout) sumElements() int { return layout.W + 10*layout.B + layout.C }

var errDocument = errors.New("not a document of ours")
var errSeal = errors.New("a manifest that no merger of the task signed")

func contains(texts []string, text string) bool {
	for _, one := range texts {
		if one == text {
			return true
		}
	}
	return false
}

// Genesis is version 0's document.
type Genesis struct {
	Task    string `json:"task"`
	Format  string `json:"format"`
	Version int    `json:"version"`
	Regions map[string]struct {
		Partitions int64  `json:"partitions"`
		Authority  string `json:"authority"`
	} `json:"regions"`
	ControlAuthority string          `json:"control_authority"`
	Layout           []Tensor        `json:"layout"`
	Policy           json.RawMessage `json:"policy"`
	ModelSHA256      string          `json:"model_sha256"`
	OptimizerSHA256  string          `json:"optimizer_sha256"`
	Records          Rules           `json:"-"`
	RawRecords       json.RawMessage `json:"records"`
	Nonce            string          `json:"nonce"`
	named            []byte
}

// Rules are those of a task's records: since genesis v4 the document says them.
type Rules struct {
	Canonical bool `json:"canonical"`
	Verdicts  int  `json:"verdicts"`
}

var firstRules = Rules{false, 1}

var keysOfGenesis = []string{"control_authority", "format", "layout", "model_sha256", "optimizer_sha256", "policy", "regions", "task", "version"}
var keysOfManifest = []string{
	"accepted", "counts", "cursors", "floor", "format", "inputs", "model_sha256", "optimizer_sha256", "parent_sha256", "policy_sha256",
	"reason", "reference_sha256", "staleness_max", "staleness_total", "task", "update_bytes", "version", "weight_total",
}

var keysOfSignedManifest = append([]string{"merger"}, keysOfManifest...)
var keysOfLateManifest = append([]string{"dropped", "guide_sha256", "usual"}, keysOfSignedManifest...)

// hasKeys says whether a canonical document has these keys and no other.
func hasKeys(data []byte, keys []string) bool {
	value, err := parseJSON(data)
	if err != nil || canonical(value) != string(data) {
		return false
	}
	document, ok := value.(map[string]any)
	if !ok || len(document) != len(keys) {
		return false
	}
	for _, key := range keys {
		if _, there := document[key]; !there {
			return false
		}
	}
	return true
}

var noncePattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

func readGenesis(data []byte) (*Genesis, error) {
	one := &Genesis{}
	if json.Unmarshal(data, one) != nil || one.Version != 0 {
		return nil, errDocument
	}
	keys := append([]string{}, keysOfGenesis...)
	switch one.Format {
	case "fluvial/genesis/v1", "fluvial/genesis/v2":
		for i := range one.Layout { // a section means nothing before v3
			one.Layout[i].Section, one.Layout[i].Nonnegative = "weights", false
		}
	case "fluvial/genesis/v3":
		keys = append(keys, "model", "code", "metric", "parent")
	case "fluvial/genesis/v4":
		keys = append(keys, "model", "code", "metric", "parent", "records")
	case "fluvial/genesis/v5", "fluvial/genesis/v6":
		keys = append(keys, "model", "code", "metric", "parent", "records", "nonce")
	default:
		return nil, errDocument
	}
	if !hasKeys(data, keys) {
		return nil, errDocument
	}
	if one.Format == "fluvial/genesis/v6" && !isVariedSoundly(one.Layout) ||
		one.Format < "fluvial/genesis/v6" && len(layoutOf(one.Layout).Control) > 0 {
		return nil, errDocument
	}
	if one.Format < "fluvial/genesis/v4" {
		one.Records = firstRules
		return one, nil
	}
	rules := &one.Records
	if !hasKeys(one.RawRecords, []string{"canonical", "verdicts"}) || json.Unmarshal(one.RawRecords, rules) != nil {
		return nil, errDocument
	}
	if !rules.Canonical || rules.Verdicts != 1 && rules.Verdicts != 2 { // since v4 no task has other records
		return nil, errDocument
	}
	if one.Format >= "fluvial/genesis/v5" {
		if !noncePattern.MatchString(one.Nonce) {
			return nil, errDocument
		}
		digest := sha256.Sum256(data)
		one.named = digest[:]
	}
	return one, nil
}

func (one *Genesis) trust() (*Trust, error) {
	pems := map[string]string{"control": one.ControlAuthority}
	for region, each := range one.Regions {
		pems[region] = each.Authority
	}
	return trustOf(pems, one.Records.Canonical, one.named)
}

// Slot is a partition of a region.
type Slot struct {
	Region    string
	Partition int64
}

func (one Slot) String() string { return fmt.Sprintf("%s[%d]", one.Region, one.Partition) }

func (one *Genesis) slots() []Slot {
	var regions []string
	for region := range one.Regions {
		regions = append(regions, region)
	}
	sort.Strings(regions)
	var slots []Slot
	for _, region := range regions {
		for partition := int64(0); partition < one.Regions[region].Partitions; partition++ {
			slots = append(slots, Slot{region, partition})
		}
	}
	return slots
}

// Input is a window in a manifest.
type Input struct {
	Region      string `json:"region"`
	Partition   int64  `json:"partition"`
	Sequence    int64  `json:"sequence"`
	FirstOffset int64  `json:"first_offset"`
	NextOffset  int64  `json:"next_offset"`
	Accepted    int64  `json:"accepted"`
	SumSHA256   string `json:"sum_sha256"`
	SHA256      string `json:"sha256"`
	// Said since v3.
	Version     *int64 `json:"version,omitempty"`
	WeightTotal *int64 `json:"weight_total,omitempty"`
	Weight      *int64 `json:"weight,omitempty"`
}

// Manifest is a version above 0.
type Manifest struct {
	Format          string             `json:"format"`
	Task            string             `json:"task"`
	Version         int64              `json:"version"`
	ParentSHA256    string             `json:"parent_sha256"`
	PolicySHA256    string             `json:"policy_sha256"`
	Inputs          []Input            `json:"inputs"`
	Cursors         map[string][]int64 `json:"cursors"`
	Counts          map[string]int64   `json:"counts"`
	Accepted        int64              `json:"accepted"`
	WeightTotal     int64              `json:"weight_total"`
	StalenessTotal  int64              `json:"staleness_total"`
	StalenessMax    int64              `json:"staleness_max"`
	UpdateBytes     int64              `json:"update_bytes"`
	ModelSHA256     string             `json:"model_sha256"`
	OptimizerSHA256 string             `json:"optimizer_sha256"`
	ReferenceSHA256 string             `json:"reference_sha256"`
	Floor           int64              `json:"floor"`
	Reason          string             `json:"reason"`
	Dropped         *int64             `json:"dropped,omitempty"`
	Usual           *Histograms        `json:"usual,omitempty"`
	GuideSHA256     *string            `json:"guide_sha256,omitempty"`
	Merger          *Seal              `json:"merger,omitempty"`
}

const (
	manifestV1 = "fluvial/manifest/v1"
	manifestV2 = "fluvial/manifest/v2"
	manifestV3 = "fluvial/manifest/v3"
)

// manifestFormat is that of a version whose parent is under a policy.
func manifestFormat(trust *Trust, policy *Policy) string {
	switch {
	case len(trust.named) == 0:
		return manifestV1
	case policy.countsShares():
		return manifestV3
	default:
		return manifestV2
	}
}

// isWhole says whether a manifest of v3 has all that it has to say, and one of before nothing of it.
func (one *Manifest) isWhole() bool {
	late := one.Format == manifestV3
	if (one.Dropped != nil) != late || (one.Usual != nil) != late || (one.GuideSHA256 != nil) != late {
		return false
	}
	for _, input := range one.Inputs {
		if (input.Version != nil) != late || (input.WeightTotal != nil) != late || (input.Weight != nil) != late {
			return false
		}
		if late && (*input.Version < 0 || *input.Weight < 0 || *input.Weight > weightOne) {
			return false
		}
	}
	return !late || isWithinHistogram(one.Usual.Norms, 0, 1<<14-1) && isWithinHistogram(one.Usual.Cosines, -64, 64) &&
		isWithinHistogram(one.Usual.Shares, 1, 255)
}

func isWithinHistogram(one Histogram, least, greatest int64) bool {
	for _, pair := range one {
		if pair[0] < least || pair[0] > greatest || pair[1] < 1 {
			return false
		}
	}
	return one != nil
}

// Seal is who made a version, since v2: certificate and signature, base64.
type Seal struct {
	Certificate string `json:"certificate"`
	Signature   string `json:"signature"`
}

func readManifest(data []byte) (*Manifest, error) {
	one := &Manifest{}
	if json.Unmarshal(data, one) != nil {
		return nil, errDocument
	}
	keys := map[string][]string{manifestV1: keysOfManifest, manifestV2: keysOfSignedManifest, manifestV3: keysOfLateManifest}[one.Format]
	if keys == nil || !hasKeys(data, keys) || !one.isWhole() || !bytes.Equal(one.bytes(), data) {
		return nil, errDocument
	}
	return one, nil
}

// signer is the merger that signed the manifest for the task; nil in tasks whose manifests nobody signs.
func (one *Manifest) signer(trust *Trust) (*Identity, error) {
	if signs := len(trust.named) > 0; signs != (one.Format != manifestV1) || !signs {
		if signs || one.Merger != nil {
			return nil, errSeal
		}
		return nil, nil
	}
	certificate, err := base64.StdEncoding.Strict().DecodeString(one.Merger.Certificate)
	signature, failed := base64.StdEncoding.Strict().DecodeString(one.Merger.Signature)
	if err != nil || failed != nil || strings.ContainsAny(one.Merger.Certificate+one.Merger.Signature, "\r\n") {
		return nil, errSeal
	}
	signer, err := trust.identify(certificate)
	if err != nil || signer.Role != "merger" || len(signature) != ed25519.SignatureSize {
		return nil, errSeal
	}
	unsigned := *one
	unsigned.Merger = nil
	digest := sha256.Sum256(unsigned.bytes())
	said := bytes.Join([][]byte{[]byte("fluvial/Manifest/v2\x00"), trust.named, digest[:]}, nil)
	if !ed25519.Verify(signer.Key, said, signature) {
		return nil, errSeal
	}
	return signer, nil
}

// bytes is the manifest's canonical form.
func (one *Manifest) bytes() []byte {
	text, err := json.Marshal(one)
	if err != nil {
		panic(err)
	}
	value, err := parseJSON(text)
	if err != nil {
		panic(err)
	}
	return []byte(canonical(value))
}

func objectKey(task, name string) string { return task + "/objects/" + name[:2] + "/" + name }

func versionKey(task string, version int64, name string) string {
	return fmt.Sprintf("%s/versions/%d/%s", task, version, name)
}
