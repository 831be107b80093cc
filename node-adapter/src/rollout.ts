// The rollout's public names: exports only.

export type { AnthropicClient } from './rollout/anthropic.js';
export { AnthropicRouter, type AnthropicRouterOptions } from './rollout/anthropicRouter.js';
export { type AnthropicSideOptions, anthropicSide } from './rollout/anthropicSide.js';
export { BatchRouter, type BatchRouterOptions, type BatchSide } from './rollout/batchRouter.js';
export {
  Comparison,
  type ComparisonOptions,
  type ComparisonReport,
  type Percentiles,
  type RolloutPrices,
  type Sample,
  type SampleAnswer,
  type SideReport,
} from './rollout/comparison.js';
export type { RolloutOptions } from './rollout/core.js';
export { type FormatOptions, formatComparison } from './rollout/format.js';
export {
  localPercentOfEnvironment,
  type Percentage,
  type RouteOptions,
  route,
  type Side,
} from './rollout/route.js';
