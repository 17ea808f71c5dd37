package main

// Envelopes, certificates, partitions: schemas/README.md.

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/big"
	"regexp"
	"strings"
	"time"
)

var signedBy = map[string]string{
	"ClientUpdate": "device", "EdgeAggregate": "edge", "Tick": "worker", "RegionalAggregate": "worker", "Barrier": "merger",
	"ModelAnnouncement": "merger", "Revoke": "operator", "Skip": "operator", "Pardon": "operator", "Guide": "guardian",
	"GuideAnnouncement": "guardian",
}

// roles, and whether the control CA vouches for them.
var roles = map[string]bool{"device": false, "edge": false, "worker": false, "merger": true, "operator": true, "guardian": true}

// contributions are refused for what they are; all else that fails is forged.
var contributions = map[string]bool{"ClientUpdate": true, "EdgeAggregate": true}

var inUpdates = map[string]bool{"ClientUpdate": true, "EdgeAggregate": true, "Barrier": true, "Tick": true, "Revoke": true, "Skip": true, "Pardon": true}

// Identity is who holds a certificate.
type Identity struct {
	Region, Role, Name, Serial string
	NotBeforeMs, NotAfterMs    int64
	Key                        ed25519.PublicKey
	Cohort                     string // of a device, since policy v6
}

type algorithm struct {
	OID        asn1.ObjectIdentifier
	Parameters asn1.RawValue `asn1:"optional"`
}

type extension struct {
	OID      asn1.ObjectIdentifier
	Critical bool `asn1:"optional"`
	Value    []byte
}

type toBeSigned struct {
	Raw       asn1.RawContent
	Version   int `asn1:"optional,explicit,default:0,tag:0"`
	Serial    *big.Int
	Algorithm algorithm
	Issuer    asn1.RawValue
	Validity  struct{ NotBefore, NotAfter time.Time }
	Subject   asn1.RawValue
	PublicKey struct {
		Algorithm algorithm
		Key       asn1.BitString
	}
	Extensions []extension `asn1:"optional,explicit,tag:3"`
}

type x509Certificate struct {
	Signed    toBeSigned
	Algorithm algorithm
	Signature asn1.BitString
}

var (
	oidEd25519     = asn1.ObjectIdentifier{1, 3, 101, 112}
	oidNames       = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	namePattern    = regexp.MustCompile(`^[a-z0-9]([a-z0-9_.-]{0,62}[a-z0-9])?$`)
	errCertificate = errors.New("not a certificate of ours")
)

func parseCertificate(der []byte) (*x509Certificate, error) {
	var found x509Certificate
	rest, err := asn1.Unmarshal(der, &found)
	if err != nil || len(rest) != 0 || found.Signed.Version != 2 {
		return nil, errCertificate
	}
	return &found, nil
}

func (one *x509Certificate) key() (ed25519.PublicKey, error) {
	key := one.Signed.PublicKey
	if !key.Algorithm.OID.Equal(oidEd25519) || key.Key.BitLength != 8*ed25519.PublicKeySize {
		return nil, errCertificate
	}
	return ed25519.PublicKey(key.Key.Bytes), nil
}

func (one *x509Certificate) uris() ([]string, error) {
	var found []string
	for _, each := range one.Signed.Extensions {
		if !each.OID.Equal(oidNames) {
			continue
		}
		var names []asn1.RawValue
		if rest, err := asn1.Unmarshal(each.Value, &names); err != nil || len(rest) != 0 {
			return nil, errCertificate
		}
		for _, name := range names {
			if name.Class == asn1.ClassContextSpecific && name.Tag == 6 {
				found = append(found, string(name.Bytes))
			}
		}
	}
	return found, nil
}

func (one *x509Certificate) isAuthority() bool {
	for _, each := range one.Signed.Extensions {
		if each.OID.Equal(oidConstraints) {
			var constraints struct {
				Authority bool `asn1:"optional"`
				Length    int  `asn1:"optional,default:-1"`
			}
			_, err := asn1.Unmarshal(each.Value, &constraints)
			return err != nil || constraints.Authority
		}
	}
	return false
}

// Trust is a task's CAs, by region, and "control", and whether its records have to be canonical.
type Trust struct {
	authorities map[string]*x509Certificate
	subjects    map[string][]byte
	canonical   bool
	cohorts     bool   // whether a device's certificate may name one
	edges       bool   // whether there are edges below regions
	named       []byte // the hash of the genesis document that signatures name; none before genesis v5
}

func trustOf(pems map[string]string, canonical bool, named []byte) (*Trust, error) {
	trust := &Trust{map[string]*x509Certificate{}, map[string][]byte{}, canonical, true, false, named}
	for region, text := range pems {
		lines := strings.Split(strings.TrimSpace(text), "\n")
		der, err := base64.StdEncoding.DecodeString(strings.Join(lines[1:len(lines)-1], ""))
		if err != nil {
			return nil, err
		}
		if trust.authorities[region], err = parseCertificate(der); err != nil {
			return nil, err
		}
		trust.subjects[region] = subjectOf(der)
	}
	return trust, nil
}

// under is the trust of the rules that a policy knows.
func (trust *Trust) under(policy *Policy) *Trust {
	known := *trust
	known.cohorts, known.edges = policy.varies(), policy.knowsEdges()
	return &known
}

// cohortIn is what the URIs behind the first say, "" for none; false where they are not one cohort of a device.
func (trust *Trust) cohortIn(others []string, role string) (string, bool) {
	if len(others) == 0 {
		return "", true
	}
	cohort, named := strings.CutPrefix(others[0], cohortPrefix)
	if !trust.cohorts || len(others) > 1 || role != "device" || !named || !cohortPattern.MatchString(cohort) {
		return "", false
	}
	return cohort, true
}

func badCertificate(code int64, values ...any) *refusal {
	return &refusal{"bad_certificate", why(code, values...)}
}

// identify gives who holds a certificate; err is a *refusal where the task's CAs do not vouch for it.
func (trust *Trust) identify(der []byte) (*Identity, error) {
	if len(der) > 4096 {
		return nil, badCertificate(201, int64(len(der)), int64(4096))
	}
	if trust.canonical {
		return trust.identifyStrictly(der)
	}
	found, err := trust.identifyLoosely(der)
	if err != nil {
		return nil, badCertificate(202)
	}
	return found, nil
}

func (trust *Trust) identifyStrictly(der []byte) (*Identity, error) {
	one, err := readStrictCertificate(der)
	switch {
	case err == errDER:
		return nil, badCertificate(207)
	case err != nil:
		return nil, badCertificate(202)
	case len(one.uris) == 0 || len(one.uris) > 1 && !trust.cohorts || !strings.HasPrefix(one.uris[0], "spiffe://"):
		return nil, badCertificate(209)
	}
	parts := strings.Split(strings.TrimPrefix(one.uris[0], "spiffe://"), "/")
	if len(parts) != 3 || !namePattern.MatchString(parts[0]) || !namePattern.MatchString(parts[2]) {
		return nil, badCertificate(210, one.uris[0])
	}
	region, role := parts[0], parts[1]
	authority, root := trust.authorityOf(region)
	ofControl, known := roles[role]
	if !known || role == "edge" && !trust.edges {
		return nil, badCertificate(210, one.uris[0])
	}
	cohort, good := trust.cohortIn(one.uris[1:], role)
	if !good {
		return nil, badCertificate(209)
	}
	if one.key == nil {
		return nil, badCertificate(203)
	}
	if authority == nil {
		return nil, badCertificate(204, region)
	}
	if ofControl != (region == "control") {
		return nil, badCertificate(205, region, role)
	}
	key, err := authority.key()
	issued := err == nil && one.signature != nil && bytes.Equal(one.issuer, trust.subjects[root])
	if !issued || len(one.signature) != ed25519.SignatureSize || !ed25519.Verify(key, one.signed, one.signature) {
		return nil, badCertificate(206, region)
	}
	if one.isAuthority {
		return nil, badCertificate(208)
	}
	return &Identity{region, role, parts[2], one.serial.Text(16), one.notBeforeMs, one.notAfterMs, one.key, cohort}, nil
}

func (trust *Trust) identifyLoosely(der []byte) (*Identity, error) {
	one, err := parseCertificate(der)
	if err != nil {
		return nil, err
	}
	uris, err := one.uris()
	if err != nil || len(uris) == 0 {
		return nil, errCertificate
	}
	parts := strings.Split(uris[0], "/")
	if len(parts) != 5 || parts[0] != "spiffe:" || parts[1] != "" {
		return nil, errCertificate
	}
	region, role, name := parts[2], parts[3], parts[4]
	if !namePattern.MatchString(region) || !namePattern.MatchString(name) {
		return nil, errCertificate
	}
	ofControl, known := roles[role]
	cohort, good := trust.cohortIn(uris[1:], role)
	if !known || !good || role == "edge" && !trust.edges || ofControl != (region == "control") {
		return nil, errCertificate
	}
	authority, _ := trust.authorityOf(region)
	key, err := one.key()
	if err != nil || authority == nil || one.isAuthority() {
		return nil, errCertificate
	}
	caKey, err := authority.key()
	if err != nil || !bytes.Equal(one.Signed.Issuer.FullBytes, authority.Signed.Subject.FullBytes) {
		return nil, errCertificate
	}
	if !one.Algorithm.OID.Equal(oidEd25519) || !one.Signed.Algorithm.OID.Equal(oidEd25519) {
		return nil, errCertificate
	}
	if one.Signature.BitLength != 8*ed25519.SignatureSize || !ed25519.Verify(caKey, one.Signed.Raw, one.Signature.Bytes) {
		return nil, errCertificate
	}
	valid := one.Signed.Validity
	return &Identity{
		region, role, name, one.Signed.Serial.Text(16),
		valid.NotBefore.Unix() * 1000, valid.NotAfter.Unix() * 1000, key, cohort,
	}, nil
}

// Envelope is an opened SignedEnvelope; its payload is known by its header only.
type Envelope struct {
	Kind                            string
	Schema                          *Schema
	Payload, Certificate, Signature []byte
}

func (registry *Registry) openEnvelope(data []byte, canonical bool) (*Envelope, error) {
	outer, err := registry.schemaIn(data)
	if err != nil {
		return nil, err
	}
	if outer.Name != "SignedEnvelope" {
		return nil, undecodable(106, "SignedEnvelope", outer.Name)
	}
	fields, err := registry.open(data, outer, canonical)
	if err != nil {
		return nil, err
	}
	one := &Envelope{
		Kind: fields["kind"].(string), Payload: fields["payload"].([]byte),
		Certificate: fields["certificate"].([]byte), Signature: fields["signature"].([]byte),
	}
	if one.Schema, err = registry.schemaIn(one.Payload); err != nil {
		return nil, err
	}
	if one.Schema.Name != one.Kind {
		return nil, undecodable(107, cut(one.Kind, 64), one.Schema.Name)
	}
	return one, nil
}

// open decodes a record by its task's rules.
func (registry *Registry) open(data []byte, schema *Schema, canonical bool) (Record, error) {
	if canonical {
		return decodeStrict(data, schema)
	}
	_, record, err := registry.decode(data)
	return record, err
}

// certificateName is how a revoked certificate is called in a partition's state; since genesis v5 no device can be called so.
func (trust *Trust) certificateName(serial string) string {
	if serial != "" && len(trust.named) > 0 {
		return "certificate:" + serial
	}
	return serial
}

func signedBytes(named []byte, kind string, schema *Schema, payload []byte) []byte {
	digest, domain := sha256.Sum256(payload), "fluvial/"+kind+"/v1\x00"
	if len(named) > 0 {
		domain = "fluvial/" + kind + "/v2\x00"
	}
	return bytes.Join([][]byte{[]byte(domain), named, schema.SHA256, digest[:]}, nil)
}

// authenticate gives the signer, or the refusal of the first check that fails. A control record is forged, whatever that was.
func (one *Envelope) authenticate(trust *Trust, timestampMs int64) (*Identity, *refusal) {
	signer, refused := one.signer(trust, timestampMs)
	if refused != nil && !contributions[one.Kind] {
		refused = forged(one.Kind, refused.Why)
	}
	return signer, refused
}

func forged(kind string, because Why) *refusal {
	because.Forged = kind
	return &refusal{"bad_signature", because}
}

func (one *Envelope) signer(trust *Trust, timestampMs int64) (*Identity, *refusal) {
	signer, err := trust.identify(one.Certificate)
	switch {
	case err != nil:
		return nil, err.(*refusal)
	case timestampMs < signer.NotBeforeMs || timestampMs > signer.NotAfterMs:
		return nil, &refusal{"certificate_expired", why(220, signer.Serial, timestampMs)}
	case signedBy[one.Kind] != signer.Role:
		return nil, badCertificate(221, signer.Role, one.Kind)
	case len(one.Signature) != ed25519.SignatureSize,
		!ed25519.Verify(signer.Key, signedBytes(trust.named, one.Kind, one.Schema, one.Payload), one.Signature):
		if len(trust.named) > 0 {
			return nil, &refusal{"bad_signature", why(227, signer.Name)}
		}
		return nil, &refusal{"bad_signature", why(222, signer.Name)}
	}
	return signer, nil
}

// seal signs a payload for a task and wraps it.
func (registry *Registry) seal(named []byte, kind string, payload, certificate []byte, key ed25519.PrivateKey) []byte {
	schema, err := registry.schemaIn(payload)
	if err != nil {
		panic(err)
	}
	return registry.encode("SignedEnvelope", 0, Record{
		"kind": kind, "payload": payload, "certificate": certificate,
		"signature": ed25519.Sign(key, signedBytes(named, kind, schema, payload)),
	})
}

// verified opens a record of one kind, if one who may sign it did.
func (registry *Registry) verified(value []byte, timestampMs int64, trust *Trust, kind string) (Record, *Identity, *Envelope) {
	one, err := registry.openEnvelope(value, trust.canonical)
	if err != nil || one.Kind != kind {
		return nil, nil, nil
	}
	signer, refused := one.authenticate(trust, timestampMs)
	if refused != nil {
		return nil, nil, nil
	}
	record, err := registry.open(one.Payload, one.Schema, trust.canonical)
	if err != nil {
		return nil, nil, nil
	}
	return record, signer, one
}

func murmur2(data []byte) uint32 {
	const m = 0x5bd1e995
	h := uint32(0x9747b28c) ^ uint32(len(data))
	for ; len(data) >= 4; data = data[4:] {
		k := binary.LittleEndian.Uint32(data) * m
		h = h*m ^ (k^k>>24)*m
	}
	if len(data) > 0 {
		var tail uint32
		for i, b := range data {
			tail |= uint32(b) << (8 * i)
		}
		h = (h ^ tail) * m
	}
	h = (h ^ h>>13) * m
	return h ^ h>>15
}

func partitionOf(key string, partitions int64) int64 {
	return int64(murmur2([]byte(key))&0x7fffffff) % partitions
}

func sha(data []byte) string {
	digest := sha256.Sum256(data)
	return hex.EncodeToString(digest[:])
}
