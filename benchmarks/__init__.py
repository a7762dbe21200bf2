"""Speed against peers. Only ratios within one run mean something; machines drift."""
