package promclient

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/hearth-metrics/hearth/internal/errs"
	"github.com/hearth-metrics/hearth/internal/rulestate"
)

// Rules are all rules of Prometheus and their alerts. The groups have no tenant yet.
func (c *Client) Rules(ctx context.Context) ([]rulestate.Group, error) {
	resp, err := c.do(ctx, http.MethodGet, c.address("/api/v1/rules", url.Values{}), nil, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var all struct {
		Status string `json:"status"`
		Data   struct {
			Groups []rulestate.Group `json:"groups"`
		} `json:"data"`
	}
	if err := json.NewDecoder(&boundedBody{resp.Body, maxResponse}).Decode(&all); err != nil {
		return nil, broken(err)
	}
	if all.Status != "success" {
		return nil, errs.E(errs.Unavailable, "Prometheus: the list of rules has status %q", all.Status)
	}
	return all.Data.Groups, nil
}
