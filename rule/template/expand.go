package template

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	texttemplate "text/template"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/template"

	"github.com/hearth-metrics/hearth/internal/errs"
)

// Expander expands templates of one alert.
type Expander struct {
	// Name is what errors call the template. Data is its dot.
	Name string
	Data any
	// At is the time of queries, and what the function now gives.
	At    model.Time
	Query template.QueryFunc
	// ExternalURL is for the functions externalURL and pathPrefix.
	ExternalURL *url.URL
}

// Expand expands text. Where b has an error afterwards, a bound was exceeded or ctx ended. All other errors are those
// of Prometheus, which shows them in the place of the text.
func (e *Expander) Expand(ctx context.Context, text string, b *Budget) (_ string, err error) {
	if b.fault != nil {
		return "", b.fault
	}
	defer func() {
		if r := recover(); r != nil { // a fault of a library in one template must not end the process
			err = fmt.Errorf("panic expanding template %v: %v", e.Name, r)
		}
	}()
	t, err := texttemplate.New(e.Name).Funcs(e.functions(ctx, b)).Option("missingkey=zero").Parse(text)
	if err != nil {
		return "", fmt.Errorf("error parsing template %v: %w", e.Name, err)
	}
	err = guard(t)
	if errs.KindOf(err) == errs.TooLarge {
		b.fault = err
	}
	if err != nil {
		return "", fmt.Errorf("error executing template %v: %w", e.Name, err)
	}
	out := output{budget: b}
	err = t.Funcs(guards(ctx, b)).Execute(&out, e.Data)
	switch {
	case b.fault != nil:
		return "", b.fault
	case err != nil:
		return "", fmt.Errorf("error executing template %v: %w", e.Name, err)
	}
	return out.text.String(), nil
}

// guards are the functions that guards call, for one execution.
func guards(ctx context.Context, b *Budget) texttemplate.FuncMap {
	calls := 0
	return texttemplate.FuncMap{
		stepFunction: func(work int) (string, error) { return "", b.step(ctx, work) },
		enterFunction: func(work int) (string, error) {
			if calls++; calls > maxCalls {
				return "", b.exceed("templates may call templates %d deep", maxCalls)
			}
			return "", b.step(ctx, work)
		},
		leaveFunction: func(int) string {
			calls--
			return ""
		},
		sizeFunction: func(_ int, v any) (any, error) {
			size, _ := sizes([]any{v}, MaxBytes)
			return v, b.made(size, MaxBytes)
		},
	}
}

// output is what comes out of a template, up to MaxBytes.
type output struct {
	text   strings.Builder
	budget *Budget
}

func (o *output) Write(p []byte) (int, error) {
	if o.text.Len()+len(p) > MaxBytes {
		return 0, o.budget.exceed("a template comes out with more than %d bytes", MaxBytes)
	}
	return o.text.Write(p)
}

// Check finds what a ruler refuses in text although Prometheus takes it, as an error of kind TooLarge.
func Check(text string) error {
	if !strings.Contains(text, "{{") {
		return nil
	}
	var e Expander
	t, err := texttemplate.New("").Funcs(e.functions(context.Background(), NewBudget(0))).Parse(text)
	if err != nil { // Prometheus says so in its own words
		return nil
	}
	if err := guard(t); errs.KindOf(err) == errs.TooLarge {
		return err
	}
	return nil
}
