package main

// Why a record got its verdict: codes and values of docs/reasons.md, as a Verdict of version 2 carries them.

const valueCharactersMax = 200

// Why is a reason's code with its values: int64, float64 or string. Code 0: there is nothing to say.
type Why struct {
	Code   int64
	Values []any
	Forged string
}

func why(code int64, values ...any) Why {
	for i, one := range values {
		if text, ok := one.(string); ok {
			values[i] = cut(text, valueCharactersMax)
		}
	}
	return Why{Code: code, Values: values}
}

// cut leaves the first characters (code points) of a text.
func cut(text string, characters int) string {
	runes := []rune(text)
	if len(runes) <= characters {
		return text
	}
	return string(runes[:characters])
}

// refusal is an outcome with its reason.
type refusal struct {
	Outcome string
	Why     Why
}

func (one *refusal) Error() string { return one.Outcome }

func undecodable(code int64, values ...any) *refusal {
	return &refusal{"undecodable", why(code, values...)}
}

// union writes a reason's values as Verdict v2 has them.
func union(values []any) []any {
	found := []any{}
	for _, one := range values {
		switch one.(type) {
		case int64:
			found = append(found, Branch{0, one})
		case float64:
			found = append(found, Branch{1, one})
		default:
			found = append(found, Branch{2, one})
		}
	}
	return found
}
